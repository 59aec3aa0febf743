#include "base/log.h"
#include "cli/cli.h"

int main(int argc, char **argv)
{
    static const struct cli_command roles[] = { { NULL } };
    log_open("flocker");
    return cli_main(argc, argv, roles);
}
