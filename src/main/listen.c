#include "main/listen.h"

#include "net/socket.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int listen_unix(const char *systemd_name, const char *path, int *ret_fd, struct error *e)
{
    int fd = socket_from_systemd(systemd_name);
    if (fd < 0)
        fd = socket_listen_unix(path, 0600, e);
    *ret_fd = fd;
    return fd < 0 ? fd : 0;
}

int listen_tcp(const char *systemd_name, const char *where, int *ret_fd, struct error *e)
{
    char address[64], *end = NULL;
    const char *colon = strrchr(where, ':');
    const char *from = where[0] == '[' ? where + 1 : where;
    long port = colon ? strtol(colon + 1, &end, 10) : -1;
    int fd = socket_from_systemd(systemd_name);
    if (!colon || colon <= from || *end || port < 0 || port > 65535)
        return fail(e, E_INVALID, "'%.80s' is not ADDRESS:PORT", where);
    int n = (int)(colon - from) - (from != where);
    snprintf(address, sizeof address, "%.*s", n, from);
    if (fd < 0)
        fd = socket_listen_tcp(address, (uint16_t)port, e);
    *ret_fd = fd;
    return fd < 0 ? fd : 0;
}
