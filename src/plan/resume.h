// How a connection between agent and control goes on where the one before it broke (docs/protocol.md, Resuming). Each side counts what it
// sent and got on a connection; the messages are in order, so equal numbers say that none was lost. Pure: for control and agent, and for who
// plays them.
#ifndef FLOCKER_PLAN_RESUME_H
#define FLOCKER_PLAN_RESUME_H

#include "base/uuid.h"

#include <jansson.h>
#include <stdint.h>

// Of one connection, as one side sees it.
struct resume_count {
    struct uuid instance; // of the process of control that it was to
    uint64_t connection;  // the how manieth of the node to that process; 0: there was none
    uint64_t wants;       // sent (control), or got (agent)
    uint64_t reports;     // got (control), or sent (agent)
};

enum resume {
    RESUME_NOTHING, // all is said anew
    RESUME_WANTS,   // the agent has every want; the reports are made anew
    RESUME_ALL,     // control has every report, too
};

// What an agent says of its last connection, in its hello.
json_t *resume_claim(const struct resume_count *agent);
// Control judges the claim in a hello (NULL: it has none) by what it counted on the node's last connection.
enum resume resume_judge(const struct resume_count *control, const json_t *claim);
// Adds to a welcome what the agent needs to judge in the same way; `next` is the connection that begins, `last` the one before.
void resume_answer(json_t *welcome, enum resume verdict, const struct resume_count *last, const struct resume_count *next);
// The agent judges what a welcome says; *ret_next is the connection that begins (0: this control can't resume any).
enum resume resume_read_answer(const json_t *welcome, const struct resume_count *agent, struct resume_count *ret_next);

#endif
