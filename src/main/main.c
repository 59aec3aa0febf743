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
    const char *root = "";
    int rc = 0;
    for (int i = 1; i < argc; i++)
        if (strncmp(argv[i], "--root=", 7) == 0)
            root = argv[i] + 7;
    struct control_options c = { "127.0.0.1:4523", TRASH_KEEP_S };
    struct agent_options a = { .backend = "btrfs", .host = "127.0.0.1" };
    rc = paths_init(&p, root, &e);
    if (rc == 0 && strcmp(argv[1], "control") == 0)
        rc = role_control(&p, &c, &e);
    else if (rc == 0 && strcmp(argv[1], "agent") == 0)
        rc = role_agent(&p, &a, &e);
    else if (rc == 0 && strcmp(argv[1], "up") == 0)
        rc = role_up(&p, 0, argv, say, &e);
    else if (rc == 0 && strcmp(argv[1], "down") == 0)
        rc = role_down(&p, false, say, &e);
    if (rc < 0)
        fprintf(stderr, "flocker: %s\n", e.msg);
    return rc < 0 ? error_exit(e.code) : 0;
}
