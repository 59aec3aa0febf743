// Reading JSON that came from outside.
#ifndef FLOCKER_MODEL_JSON_H
#define FLOCKER_MODEL_JSON_H

#include "base/error.h"

#include <jansson.h>
#include <stddef.h>
#include <stdio.h>

// Parses one JSON document nested at most JSON_DEPTH_MAX deep, without duplicate members. E_INVALID says where and why. `text` need not end
// in NUL. *ret is a new reference, of any type.
int json_read(const char *text, size_t n, json_t **ret, struct error *e);

// A string of any text, also of one that was cut within a character or never was UTF-8: what isn't becomes question marks. Never NULL, so
// that no message is lost because of what it quotes. New reference.
json_t *json_text(const char *text) __attribute__((returns_nonnull));

// {"code": WORD, "message": TEXT}: an error as agent and control tell it each other. New reference.
json_t *json_from_error(const struct error *e) __attribute__((returns_nonnull));

// What the member "error" of `object` says: negative with *e set; 0 if there is none. One that makes no sense is E_IO.
int json_read_error(const json_t *object, struct error *e);

// Writes the text, which must be UTF-8, as a JSON string.
void json_write_string(FILE *f, const char *text);

#endif
