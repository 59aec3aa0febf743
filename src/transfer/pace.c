#include "transfer/pace.h"

#include "base/error.h"

#define SECOND_US   1000000
#define METER_MEAN  5.0                  // seconds
#define METER_EVERY (SECOND_US / 5)      // shorter spans say little
#define WAIT_MAX_US (3600LL * SECOND_US) // of one call: more bytes than an hour's worth are no chunk

// ---- limit

int64_t pace_limit_wait(struct pace_limit *l, uint64_t bytes, int64_t now_us)
{
    if (l->rate == 0)
        return 0;
    if (l->ready_us < now_us - PACE_BURST_US)
        l->ready_us = now_us - PACE_BURST_US;
    double cost = (double)bytes * SECOND_US / (double)l->rate;
    l->ready_us += cost > (double)WAIT_MAX_US ? WAIT_MAX_US : (int64_t)cost;
    return l->ready_us > now_us ? l->ready_us - now_us : 0;
}

// ---- compression

static void new_window(struct pace_zip *z, int64_t now_us)
{
    z->bytes = z->wire = 0;
    z->began_us = now_us;
    z->blocked_us = 0;
}

static void enter(struct pace_zip *z, enum pace_state state)
{
    z->state = state;
    z->windows = 0;
}

static void give_up(struct pace_zip *z)
{
    enter(z, PACE_PLAIN);
    z->skip = z->skip * 2 < PACE_SKIP_MAX ? z->skip * 2 : PACE_SKIP_MAX;
    z->skipped = 0;
}

void pace_zip_begin(struct pace_zip *z, int64_t now_us)
{
    *z = (struct pace_zip){ .state = PACE_PLAIN, .skip = 1 };
    new_window(z, now_us);
}

static bool has_shrunk(const struct pace_zip *z)
{
    return z->wire * 100 <= z->bytes * PACE_RATIO_MAX;
}

static void end_window(struct pace_zip *z, int64_t now_us)
{
    int64_t took = now_us > z->began_us ? now_us - z->began_us : 1;
    uint64_t rate = z->bytes * SECOND_US / (uint64_t)took;
    bool is_better = rate * 100 >= z->plain_rate * PACE_GAIN && has_shrunk(z);
    z->windows++;
    switch (z->state) {
    case PACE_PLAIN:
        z->plain_rate = rate;
        z->skipped++;
        if (z->skipped >= z->skip && z->blocked_us * 100 >= took * PACE_BLOCKED && rate <= PACE_RATE_MAX)
            enter(z, PACE_TRIAL);
        break;
    case PACE_TRIAL:
        if (is_better) {
            enter(z, PACE_ZIP);
            z->skip = 1;
        } else {
            give_up(z);
        }
        break;
    case PACE_ZIP:
        if (!is_better)
            give_up(z);
        else if (z->windows >= PACE_KEEP_WINDOWS)
            enter(z, PACE_PLAIN); // for one window: the next try comes right after it
        break;
    }
    new_window(z, now_us);
}

void pace_zip_sent(struct pace_zip *z, uint64_t bytes, uint64_t wire, int64_t blocked_us, int64_t now_us)
{
    ASSERT(wire <= bytes);
    z->bytes += bytes;
    z->wire += wire;
    z->blocked_us += blocked_us;
    if (z->state == PACE_TRIAL && !has_shrunk(z)) { // no need to try all of the window with what doesn't shrink
        give_up(z);
        new_window(z, now_us);
    } else if (z->bytes >= PACE_WINDOW) {
        end_window(z, now_us);
    }
}

// ---- progress

void pace_meter_note(struct pace_meter *m, uint64_t bytes, int64_t now_us)
{
    if (m->at_us == 0 || bytes < m->bytes) {
        *m = (struct pace_meter){ bytes, now_us, 0 };
        return;
    }
    if (now_us - m->at_us < METER_EVERY)
        return;
    double span = (double)(now_us - m->at_us) / SECOND_US;
    double rate = (double)(bytes - m->bytes) / span;
    m->rate = m->rate > 0 ? m->rate + (rate - m->rate) * span / (span + METER_MEAN) : rate;
    m->bytes = bytes;
    m->at_us = now_us;
}

int64_t pace_meter_left_s(const struct pace_meter *m, uint64_t total)
{
    if (total <= m->bytes || m->rate < 1)
        return -1;
    return (int64_t)((double)(total - m->bytes) / m->rate) + 1;
}
