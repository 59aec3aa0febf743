// YAML files that people write for flockerctl and flocker-deploy, as JSON.
#ifndef FLOCKER_CLI_YAML_H
#define FLOCKER_CLI_YAML_H

#include "base/error.h"

#include <jansson.h>

// Reads one document of mappings, lists, texts, whole numbers, true, false and null, nested at most JSON_DEPTH_MAX deep; what is in quotes is
// text. No anchors, aliases, tags: E_INVALID names the file and the line. E_NOT_FOUND; E_TOO_LARGE over HTTP_BODY_BYTES_MAX bytes.
int yaml_read_file(const char *path, json_t **ret, struct error *e);
int yaml_parse(const char *name, const char *text, size_t n, json_t **ret, struct error *e); // `name` of the file, for messages

#endif
