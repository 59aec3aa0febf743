// What the parts of control's side of the agents' connections share; for agents*.c alone. A connection comes in at the door (agents_door.c), says
// whose it is, and is then read message by message (agents.c): reports (agents_reports.c) and requests (agents_requests.c).
#ifndef FLOCKER_CONTROL_AGENTS_H
#define FLOCKER_CONTROL_AGENTS_H

#include "control/internal.h"
#include "net/line.h"
#include "net/socket.h"

#include <event2/event.h>

struct agent_peer {
    LIST_ENTRY(agent_peer) all;
    struct control *control;
    struct line_peer *line;
    struct control_node *node; // NULL until its hello
    bool is_resumed;           // it has the wants that were sent on the node's last connection
    bool is_told;              // its inventory is there: what is due goes out
    bool synced;               // all that was due then has gone out
    struct event *deadline;    // for its hello
    json_int_t last_ask;
    size_t ask_count;          // not answered
    LIST_HEAD(, ask) asks;
    bool is_remote;            // it came by TLS: it is who its certificate says, not who it says
    struct uuid certified;     // the node of that certificate; zero: not known yet, or none was shown
    bool is_joining;           // none was shown: it may only ask to join
    struct error *late;        // what it will be told in a moment: NULL: nothing
    bool is_over;              // it was told why it is refused, and has a moment to read that
    TAILQ_ENTRY(agent_peer) waiting; // remote, before its hello
    char from[SOCKET_ADDRESS_SIZE];
};

// ---- agents.c
void agent_peer_send(struct agent_peer *p, json_t *message /* taken */);
// Sends the want of the volume that the message's member `id` names, if it is due: by it the agent knows what the message means, which comes next.
void agent_peer_send_want_first(struct agent_peer *p, const json_t *message);
void agent_peer_pump(struct agent_peer *p); // sends what is due, as long as the agent takes it
void agent_peer_free(struct agent_peer *p); // ends what it was asked with E_UNAVAILABLE
bool agent_read_uuid(const json_t *message, const char *member, struct uuid *ret);
void agent_peer_on_line(void *peer, char *line, size_t n); // callbacks of its line
void agent_peer_on_drained(void *peer);

// What follows handles one message of an agent each, and returns a reason to close the connection, or NULL.
typedef const char *agent_handler(struct agent_peer *p, const json_t *message);

// ---- agents_door.c
void agent_peer_close(void *peer, const char *why); // frees it
agent_handler agent_on_hello, agent_on_join;

// ---- agents_reports.c
agent_handler agent_on_report, agent_on_inventory_end, agent_on_pool;

// ---- agents_requests.c
agent_handler agent_on_request, agent_on_renew;

#endif
