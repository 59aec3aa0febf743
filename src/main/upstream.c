#include "main/upstream.h"

#include "base/mem.h"

int upstream_read_config(const struct paths *p, const char *path, struct config *ret, struct error *e)
{
    AUTO(free) char *standard = xasprintf("%s/agent.yml", p->etc);
    int rc = config_read(path ? path : standard, ret, e);
    return rc == -E_NOT_FOUND && !path ? 0 : rc;
}

int upstream_find(const struct config *file, const char *option, struct upstream *ret, struct error *e)
{
    const char *where = option ? option : file->control_host ? file->control_host : "localhost";
    ret->port = file->control_port ? file->control_port : AGENTS_PORT;
    int rc = host_port_parse(where, ret->host, &ret->port, e);
    if (rc < 0)
        return fail_ctx(e, rc, "the control service");
    ret->is_remote = !host_is_local(ret->host);
    return 0;
}
