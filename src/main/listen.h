// Listening sockets of the daemons, from systemd where it made them, else made here; and addresses as people write them.
#ifndef FLOCKER_MAIN_LISTEN_H
#define FLOCKER_MAIN_LISTEN_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

// The descriptor in *ret_fd is the caller's. Errors as socket_listen_unix and socket_listen_tcp; E_INVALID for what is no ADDRESS:PORT.
int listen_unix(const char *systemd_name, const char *path, int *ret_fd, struct error *e);
int listen_check(const char *where, struct error *e); // whether it is such an address; E_INVALID
// `where` is ADDRESS:PORT, with brackets around an IPv6 address; `option` takes another one.
int listen_tcp(const char *systemd_name, const char *option, const char *where, int *ret_fd, struct error *e);


#define HOST_SIZE 256
// Parts HOST or HOST:PORT, with brackets around an IPv6 address before a port; without a port *ret_port stays as it is. E_INVALID.
int host_port_parse(const char *text, char ret_host[HOST_SIZE], uint16_t *ret_port, struct error *e);
// This host by one of the names that mean it everywhere.
bool host_is_local(const char *host);

#endif
