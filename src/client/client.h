// Calls to the REST API of control and of the agent: JSON in, JSON out, and every failure as one struct error. They block.
#ifndef FLOCKER_CLIENT_CLIENT_H
#define FLOCKER_CLIENT_CLIENT_H

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct ssl_ctx_st;

struct client {
    const char *unix_path; // or:
    const char *host;      // name or address
    uint16_t port;
    struct ssl_ctx_st *tls;  // for host; NULL: plain, unless:
    const char *ca, *certificate, *key; // files, for host: a context is made of them for each call. NULL: not by files
    bool any_name;           // its certificate may hold any name, as long as our CA has signed it
    const char *verify_name; // what the server's certificate must say; NULL: host
    const char *hint;        // what to do when nobody listens: "is `flocker up` done?"; may be NULL
    int timeout_ms;          // for a whole call; 0: CLIENT_TIMEOUT_MS
};

#define CLIENT_WAIT_S     30    // what calls that wait for their effect ask for (?wait=), the most that control grants
#define CLIENT_TIMEOUT_MS 60000 // longer than any wait, and than control waits for an agent

// Sends one request and reads the reply. `body` (NULL: none) is taken. On success *ret is a new reference, null if the reply was
// empty; `ret` itself may be NULL. Nobody listens: E_UNAVAILABLE, naming the socket and the hint. The API's own errors have the
// code that the reply names, or else the one that fits its HTTP status, and the reply's description.
int client_call(const struct client *c, const char *method, const char *target, json_t *body, json_t **ret, struct error *e);

// GETs a list that may come in pages: goes on as long as a reply names the next one. *ret is one array of all; new reference.
int client_list(const struct client *c, const char *target, json_t **ret, struct error *e);

// A path segment or query value, percent-encoded; the caller frees it.
char *client_encode(const char *text);

#endif
