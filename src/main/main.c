#include "main/roles.h"

#include "base/limits.h"

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
    const char *root = "", *plugin_listen = NULL;
    char *agent_argv[1];
    int rc = 0, agent_argc = 0;
    for (int i = 1; i < argc; i++)
        if (strncmp(argv[i], "--root=", 7) == 0)
            root = argv[i] + 7;
        else if (strncmp(argv[i], "--plugin-listen=", 16) == 0) {
            plugin_listen = argv[i] + 16;
            agent_argv[0] = argv[i];
            agent_argc = 1;
        }
    struct control_options c = { "127.0.0.1:4523", TRASH_KEEP_S };
    struct agent_options a = { .backend = "btrfs", .plugin_listen = plugin_listen, .host = "127.0.0.1" };
    rc = paths_init(&p, root, &e);
    if (rc == 0 && strcmp(argv[1], "control") == 0)
        rc = role_control(&p, &c, &e);
    else if (rc == 0 && strcmp(argv[1], "agent") == 0)
        rc = role_agent(&p, &a, &e);
    else if (rc == 0 && strcmp(argv[1], "up") == 0)
        rc = role_up(&p, agent_argc, agent_argv, say, &e);
    else if (rc == 0 && strcmp(argv[1], "down") == 0)
        rc = role_down(&p, false, say, &e);
    if (rc < 0)
        fprintf(stderr, "flocker: %s\n", e.msg);
    return rc < 0 ? error_exit(e.code) : 0;
}
