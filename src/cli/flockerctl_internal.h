// What flockerctl.c and flocker_deploy.c share.
#ifndef FLOCKER_CLI_FLOCKERCTL_INTERNAL_H
#define FLOCKER_CLI_FLOCKERCTL_INTERNAL_H

#include "client/client.h"

#include <stdio.h>

#define CTL_PORT_DEFAULT "4523"
enum { CTL_HELP = 1000, CTL_VERSION }; // of getopt's `val`, above all letters and indices

struct ssl_ctx_st;

// Control, and who we are to it. flockerctl_run frees host and tls.
struct ctl_link {
    char *host;
    struct ssl_ctx_st *tls;
    struct client client;
};
// With l->host set. The files are in PEM.
int ctl_link_open(struct ctl_link *l, const char *port_text, const char *ca, const char *certificate, const char *key, struct error *e);

// 1: help or the version was asked for and printed.
int deploy_run(struct ctl_link *l, FILE *out, int argc, char **argv, struct error *e);

#endif
