// The certificates of a cluster of one host, made at the first start so that nobody has to.
#ifndef FLOCKER_MAIN_CERTIFICATES_H
#define FLOCKER_MAIN_CERTIFICATES_H

#include "base/error.h"
#include "base/uuid.h"

// In `etc`, whichever are missing: the cluster's CA (cluster), control-service, node (with a fresh node id), user (for the REST API),
// plugin (for the plugin's TCP door) and engine (for an engine that uses that door). A directory that has a cluster.crt and no cluster.key
// belongs to a cluster made elsewhere: nothing is made there, and it is E_CONFLICT if control-service is missing.
int certificates_make(const char *etc, struct error *e);
// The node's id: from the CN of node.crt.
int certificates_node(const char *etc, struct uuid *ret, struct error *e);
// Says in the log which of the keys there others than root can read: whoever has read one can be who it is for.
void certificates_look_at_keys(const char *etc);

#endif
