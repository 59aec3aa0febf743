// agent.yml over any bytes. What is accepted keeps the promises of the header; an error is one printable line that names the file.
#include "fuzz.h"

#include "client/config.h"
#include "base/mem.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error e = ERROR_INIT;
    struct config c = { .control_port = 1 };
    int rc = config_parse("agent.yml", (const char *)data, size, &c, &e);
    if (rc < 0) {
        ASSERT((rc == -E_INVALID || (rc == -E_TOO_LARGE && size > CONFIG_BYTES_MAX)) && c.control_port == 1 && !c.backend);
        ASSERT(strncmp(e.msg, "agent.yml", 9) == 0);
        for (const char *p = e.msg; *p; p++)
            ASSERT(*p >= 0x20 && *p < 0x7f);
        return 0;
    }
    ASSERT(c.control_host && *c.control_host && c.control_port && c.backend);
    ASSERT(strcmp(c.backend, "btrfs") == 0 || strcmp(c.backend, "memory") == 0);
    ASSERT((!c.pool || c.pool[0] == '/') && (!c.mount_root || c.mount_root[0] == '/'));
    ASSERT(!c.docker_listen || strchr(c.docker_listen, ':'));
    config_done(&c);
    return 0;
}
