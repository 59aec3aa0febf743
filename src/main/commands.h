// The daemons and what starts and stops them, as commands of the one command line.
#ifndef FLOCKER_MAIN_COMMANDS_H
#define FLOCKER_MAIN_COMMANDS_H

#include "cli/cli.h"

extern const struct cli_command main_commands[];

#endif
