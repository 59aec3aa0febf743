#include "base/log.h"
#include "cli/cli.h"
#include "main/commands.h"

int main(int argc, char **argv)
{
    log_open("flocker");
    return cli_main(argc, argv, main_commands);
}
