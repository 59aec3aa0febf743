#include "plan/container.h"

#define RAN_LONG_MS      10000 // as Docker has it: one that ran that long counts as a success
#define RESTART_MS_MIN   100
#define RESTART_MS_MAX   60000

static const char *const words[CONTAINER_STEP_COUNT] = {
#define X(step, word) [step] = word,
    CONTAINER_STEP_TABLE(X)
#undef X
};

const char *container_step_word(enum container_step s)
{
    return words[s];
}

enum container_step plan_container(const struct container *want, const struct container_here *here, bool ready, const struct uuid *era)
{
    if (!here->known)
        return CONTAINER_LOOK;
    if (!want)
        return here->present ? CONTAINER_REMOVE : CONTAINER_NONE;
    if (!here->present)
        return ready ? CONTAINER_CREATE : CONTAINER_WAIT;
    if (here->revision != want->revision || !uuid_equal(&here->era, era))
        return CONTAINER_REMOVE;
    if (here->running)
        return CONTAINER_NONE;
    if (here->started && !container_restarts(want, here->exit_code, here->restarts))
        return CONTAINER_NONE;
    if (!ready)
        return CONTAINER_WAIT;
    return here->started ? CONTAINER_AGAIN : CONTAINER_START;
}

int64_t plan_restart_delay_ms(int64_t ran_ms, unsigned *ends)
{
    if (ran_ms >= RAN_LONG_MS)
        *ends = 0;
    unsigned doublings = *ends < 16 ? (*ends)++ : 16;
    int64_t delay_ms = (int64_t)RESTART_MS_MIN << doublings;
    return delay_ms < RESTART_MS_MAX ? delay_ms : RESTART_MS_MAX;
}
