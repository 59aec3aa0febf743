// Requests of engines to a volume plugin, read from bytes. Pure, and fuzzed.
#ifndef FLOCKER_DOCKER_REQUEST_H
#define FLOCKER_DOCKER_REQUEST_H

#include "base/error.h"
#include "base/limits.h"
#include "model/volume.h"
#include "plan/refs.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLUGIN_CALL_TABLE(X) \
    X(CALL_ACTIVATE,     "/Plugin.Activate",           false) \
    X(CALL_CREATE,       "/VolumeDriver.Create",       true)  \
    X(CALL_REMOVE,       "/VolumeDriver.Remove",       true)  \
    X(CALL_MOUNT,        "/VolumeDriver.Mount",        true)  \
    X(CALL_PATH,         "/VolumeDriver.Path",         true)  \
    X(CALL_UNMOUNT,      "/VolumeDriver.Unmount",      true)  \
    X(CALL_GET,          "/VolumeDriver.Get",          true)  \
    X(CALL_LIST,         "/VolumeDriver.List",         false) \
    X(CALL_CAPABILITIES, "/VolumeDriver.Capabilities", false)

enum plugin_call {
#define X(call, path, named) call,
    PLUGIN_CALL_TABLE(X)
#undef X
    CALL_COUNT
};

struct plugin_request {
    enum plugin_call call;
    bool empty; // a call that names a volume came without a body: an engine's retry after a broken exchange
    char name[NAME_BYTES_MAX + 1];
    char id[MOUNT_ID_SIZE]; // of Mount and Unmount; "" if absent
    uint64_t size;          // of Create
    struct volume_options options;
    struct metadata metadata; // the profile; and the size as the original writes it
};

// The call of a path; CALL_COUNT if it is none.
enum plugin_call plugin_call_of(const char *path);
// Reads a body. Unknown members are ignored; an unknown option is E_INVALID and named, except Podman's shadow keys (the upper-case SIZE, UID,
// GID count as their lower-case forms, INODES, NOQUOTA and `o` are ignored: Podman adds them for `-o o=...`). A name that no volume can have
// is E_INVALID for Create; for other calls it is read as it is, cut at what fits, and matches nothing.
int plugin_request_read(enum plugin_call call, const char *body, size_t n, struct plugin_request *ret, struct error *e);
void plugin_request_done(struct plugin_request *r);

#endif
