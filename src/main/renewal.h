// Renewal of the control service's own certificates, and of those that it keeps for the users of its host, while it runs.
#ifndef FLOCKER_MAIN_RENEWAL_H
#define FLOCKER_MAIN_RENEWAL_H

#include "main/paths.h"

struct event_base;
struct ssl_ctx_st;
struct renewal;

// Looks at the files in p->etc now and then, renews what is due if cluster.key is there, and has the contexts (borrowed, NULL: none) use
// what control-service.crt holds. Borrows `p`. What goes wrong is logged.
struct renewal *renewal_new(struct event_base *base, const struct paths *p, struct ssl_ctx_st *rest, struct ssl_ctx_st *agents);
void renewal_free(struct renewal *r);

#endif
