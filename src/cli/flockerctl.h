// flockerctl (also called flocker-volumes): the command line of the original Flocker, with its sub-commands, options, environment and
// columns, over REST API v1. And flocker-deploy. They speak TLS with a user's certificate.
//
// What differs from the original: a refusal of the API is told and gives exit status 1, where that printed its success sentence; and lines
// of a table are never broken.
#ifndef FLOCKER_CLI_FLOCKERCTL_H
#define FLOCKER_CLI_FLOCKERCTL_H

#include <stdbool.h>
#include <stdio.h>

// Whether the program was called by a name of these; then flockerctl_run is to be called instead of the CLI.
bool flockerctl_is(const char *program);
// Returns the exit status. Everything is printed to `out`, errors too, as the original does.
int flockerctl_run(int argc, char **argv, FILE *out);

#endif
