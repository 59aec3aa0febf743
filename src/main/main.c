#include "base/log.h"
#include "cli/cli.h"
#include "cli/flockerctl.h"
#include "main/commands.h"

int main(int argc, char **argv)
{
    log_open("flocker");
    if (argc > 0 && flockerctl_is(argv[0]))
        return flockerctl_run(argc, argv, stdout);
    return cli_main(argc, argv, main_commands);
}
