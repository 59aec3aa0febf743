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

// The port behind the last colon, unless that is in an IPv6 address without brackets.
static bool split(const char *text, size_t *ret_host_n, const char **ret_port)
{
    const char *colon = strrchr(text, ':'), *bracket = strrchr(text, ']');
    bool has_port = colon && (bracket ? colon > bracket : strchr(text, ':') == colon);
    *ret_host_n = has_port ? (size_t)(colon - text) : strlen(text);
    *ret_port = has_port ? colon + 1 : NULL;
    return (text[0] == '[') == (bracket != NULL) && (!bracket || bracket[1] == '\0' || bracket + 1 == colon);
}

int host_port_parse(const char *text, char ret_host[HOST_SIZE], uint16_t *ret_port, struct error *e)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:";
    size_t n;
    char *end = NULL;
    const char *port;
    bool is_good = split(text, &n, &port);
    long number = port && *port >= '0' && *port <= '9' ? strtol(port, &end, 10) : -1;
    if (is_good && text[0] == '[') {
        text++;
        n -= 2;
    }
    if (!is_good || n == 0 || n >= HOST_SIZE || strspn(text, allowed) < n || (port && (number < 0 || number > UINT16_MAX || *end)))
        return fail(e, E_INVALID, "'%.80s' is not a host name or address, with :PORT or without", text);
    memcpy(ret_host, text, n);
    ret_host[n] = '\0';
    if (port)
        *ret_port = (uint16_t)number;
    return 0;
}

bool host_is_local(const char *host)
{
    return strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0 || strncmp(host, "127.", 4) == 0;
}

static int parse_listen(const char *where, char ret_host[HOST_SIZE], uint16_t *ret_port, struct error *e)
{
    const char *port_text;
    size_t n;
    struct error ignored;
    if (host_port_parse(where, ret_host, ret_port, &ignored) < 0 || !split(where, &n, &port_text) || !port_text)
        return fail(e, E_INVALID, "'%.80s' is not ADDRESS:PORT", where);
    return 0;
}

int listen_check(const char *where, struct error *e)
{
    char address[HOST_SIZE];
    uint16_t port;
    return parse_listen(where, address, &port, e);
}

int listen_tcp(const char *systemd_name, const char *option, const char *where, int *ret_fd, struct error *e)
{
    char address[HOST_SIZE];
    uint16_t port = 0;
    int rc = parse_listen(where, address, &port, e);
    if (rc < 0)
        return rc;
    int fd = socket_from_systemd(systemd_name);
    if (fd < 0)
        fd = socket_listen_tcp(address, port, e);
    *ret_fd = fd;
    if (fd == -E_BUSY) {
        const struct error why = *e;
        return fail(e, E_BUSY, "%s; stop it, or have Flocker listen elsewhere: --%s=ADDRESS:PORT", why.msg, option);
    }
    return fd < 0 ? fd : 0;
}
