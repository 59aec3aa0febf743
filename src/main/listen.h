// Listening sockets of the daemons: from systemd where it made them, else made here.
#ifndef FLOCKER_MAIN_LISTEN_H
#define FLOCKER_MAIN_LISTEN_H

#include "base/error.h"

// The descriptor in *ret_fd is the caller's. Errors as socket_listen_unix and socket_listen_tcp; E_INVALID for what is no ADDRESS:PORT.
int listen_unix(const char *systemd_name, const char *path, int *ret_fd, struct error *e);
// `where` is ADDRESS:PORT, with brackets around an IPv6 address.
int listen_tcp(const char *systemd_name, const char *where, int *ret_fd, struct error *e);

#endif
