// Who else has a folder of a file system mounted: processes in other mount namespaces, containers above all.
//
// A successful unmount here proves nothing about them: each keeps its own copy of the mount, and with it the file system.
#ifndef FLOCKER_SYS_USERS_H
#define FLOCKER_SYS_USERS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

#define CONTAINER_ID_SIZE 65

struct users_query {
    unsigned major, minor; // of the file system, as in mountinfo
    const char *root;      // folder of it; mounts of folders below it count too
    // Peer group of the mount below which our own mounts of it lie, or 0. A mount whose parent belongs to that group, or gets its
    // events directly or by way of other groups, is a mere copy of ours: it goes when ours is unmounted, and is not counted.
    int peer_group;
};

struct users_entry {
    int pid;                           // the lowest of the namespace that was met
    char container[CONTAINER_ID_SIZE]; // "" if its cgroup isn't that of a container
    char command[32];
};

// Writes up to `max` users, one per mount namespace, and returns how many it wrote. Not seen: a namespace that no process is in
// (kept by an open file only) and one that only a thread other than the first of its process is in.
int users_scan(const struct users_query *query, struct users_entry *ret, size_t max, struct error *e);

// Names one process that has its working folder, root or an open file at `path` or below, by the names in /proc; for messages.
bool users_of_path(const char *path, struct users_entry *ret);

// "container 0123456789ab (pid 17, postgres)" or "pid 17 (postgres)".
#define USERS_TEXT_SIZE 128
const char *users_text(const struct users_entry *u, char ret[USERS_TEXT_SIZE]);

// From the text of /proc/PID/cgroup: 64 hex digits in the last part of a path, as Docker, Podman, containerd and CRI-O name their
// groups ("/docker/<id>", "docker-<id>.scope", "libpod-<id>.scope", "libpod-<id>/container"). False if there are none.
bool users_container_id(const char *cgroup_text, char ret[CONTAINER_ID_SIZE]);

#endif
