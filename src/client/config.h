// agent.yml: what an agent, and the command line on its host, are told by its file. The keys of the original Flocker that still mean
// something, and those of our backends.
//
//   version: 1                 required
//   control-service:
//     hostname: 127.0.0.1      name or address of the control service; this host's own: by its socket
//     port: 4524
//   dataset:
//     backend: btrfs           btrfs or memory
//     pool: /var/lib/...       file, block device or directory of a btrfs
//     pool_size: 100G          of a pool file when it is made
//     format: false            whether an empty device may be formatted
//     quota: auto              auto or qgroups
//     mount_root: /flocker
//   docker:
//     listen: 0.0.0.0:4521     the plugin's TLS door
//   logging: {...}             the original's; accepted and ignored
#ifndef FLOCKER_CLIENT_CONFIG_H
#define FLOCKER_CLIENT_CONFIG_H

#include "base/error.h"
#include "base/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Text is owned; NULL where the file says nothing and there is no default here.
struct config {
    char *control_host;  // "127.0.0.1"
    uint16_t control_port;
    char *backend;       // "btrfs"
    char *pool;
    uint64_t pool_size;  // 0: not said
    bool format;
    bool qgroups;
    char *mount_root;
    char *docker_listen; // ADDRESS:PORT
    char note[200];      // something for the log, "" if there is nothing
};

// Reads and checks the whole file. Each error names file, line and key and says what is allowed: E_INVALID, E_TOO_LARGE over
// CONFIG_BYTES_MAX, E_NOT_FOUND if there is no file. *ret is untouched on failure.
int config_read(const char *path, struct config *ret, struct error *e);
// The same for text of n bytes; `file` is its name for messages.
int config_parse(const char *file, const char *text, size_t n, struct config *ret, struct error *e);
void config_done(struct config *c);

#endif
