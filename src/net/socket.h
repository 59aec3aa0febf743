// Listening and connecting sockets, and what systemd hands over.
#ifndef FLOCKER_NET_SOCKET_H
#define FLOCKER_NET_SOCKET_H

#include "base/error.h"

#include <stdint.h>
#include <sys/types.h>

// Makes a non-blocking listening unix socket at `path` with `mode`. A stale socket (nobody answers) is replaced; a live one is E_BUSY. The
// socket is bound under a name in another directory-entry only if that is in no directory that an engine scans: it is bound in place.
int socket_listen_unix(const char *path, mode_t mode, struct error *e);
// Non-blocking listening TCP socket at a numeric address; port 0 lets the kernel choose.
int socket_listen_tcp(const char *address, uint16_t port, struct error *e);
uint16_t socket_port(int fd); // the port a TCP socket listens at
// Begins to connect to a numeric address; the non-blocking descriptor becomes writable when that has succeeded or failed (SO_ERROR).
int socket_start_tcp(const char *address, uint16_t port, struct error *e);
#define SOCKET_ADDRESS_SIZE 46
// This and the other side's numeric address of a TCP connection; "" if it has none.
void socket_local_address(int fd, char ret[SOCKET_ADDRESS_SIZE]);
void socket_peer_address(int fd, char ret[SOCKET_ADDRESS_SIZE]);
// Small messages leave at once.
void socket_set_nodelay(int fd);
// Blocking connect with a limit of time; returns the (blocking, close-on-exec) descriptor.
int socket_connect_unix(const char *path, int timeout_ms, struct error *e);
// Descriptor named `name` of those systemd passed ($LISTEN_FDS, $LISTEN_FDNAMES), or -1.
int socket_from_systemd(const char *name);
// Tells the service manager ("READY=1", "STOPPING=1"); does nothing without $NOTIFY_SOCKET.
void socket_notify(const char *state);

#endif
