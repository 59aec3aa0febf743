#include "main/roles.h"

#include "base/limits.h"
#include "base/size.h"

#include <stdio.h>
#include <string.h>

static void say(const char *line)
{
    puts(line);
}

int main(int argc, char **argv)
{
    struct paths p;
    struct error e = ERROR_INIT;
    const char *root = "";
    int rc = 0;
    struct control_options c = { "127.0.0.1:4523", TRASH_KEEP_S };
    struct agent_options a = { .backend = "btrfs", .host = "127.0.0.1" };
    int agent_argc = 0;
    for (int i = 2; i < argc && rc == 0; i++)
        if (strncmp(argv[i], "--root=", 7) == 0)
            root = argv[i] + 7;
        else if (strncmp(argv[i], "--rest=", 7) == 0)
            c.rest = argv[i] + 7;
        else if (strncmp(argv[i], "--pool-size=", 12) == 0) {
            rc = size_parse(argv[i] + 12, &a.pool_size, &e);
            argv[2 + agent_argc++] = argv[i]; // `up` hands it on
        }
    if (rc == 0)
        rc = argc > 1 ? paths_init(&p, root, &e) : fail(&e, E_INVALID, "say what to do: up, down, control or agent");
    if (rc == 0 && strcmp(argv[1], "control") == 0)
        rc = role_control(&p, &c, &e);
    else if (rc == 0 && strcmp(argv[1], "agent") == 0)
        rc = role_agent(&p, &a, &e);
    else if (rc == 0 && strcmp(argv[1], "up") == 0)
        rc = role_up(&p, agent_argc, argv + 2, say, &e);
    else if (rc == 0 && strcmp(argv[1], "down") == 0)
        rc = role_down(&p, false, say, &e);
    if (rc < 0)
        fprintf(stderr, "flocker: %s\n", e.msg);
    return rc < 0 ? error_exit(e.code) : 0;
}
