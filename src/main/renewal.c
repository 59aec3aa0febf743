#include "main/renewal.h"

#include "base/log.h"
#include "base/mem.h"
#include "net/pki.h"

#include <event2/event.h>

#define CHECK_S_MAX 3600

struct renewal {
    const struct paths *paths;
    struct ssl_ctx_st *contexts[2];
    struct event *timer;
};

// The agents see to those of their nodes.
static const char *const files[] = { "control-service", "user" };

// Seconds until it is due.
static int64_t look_at(const struct renewal *r, const char *file)
{
    struct error e = ERROR_INIT;
    struct pki_life life;
    const char *etc = r->paths->etc;
    if (!pki_has(etc, file))
        return CHECK_S_MAX;
    int rc = pki_life(etc, file, &life, &e);
    if (rc == 0 && pki_is_due(&life) && pki_has(etc, PKI_CA_FILE)) {
        rc = pki_renew(etc, etc, file, PKI_DAYS, &e);
        if (rc == 0 && (rc = pki_life(etc, file, &life, &e)) == 0)
            log_info("%s/%s.crt is renewed", etc, file);
    } else if (rc == 0 && pki_is_due(&life))
        log_warn("%s/%s.crt is over in %lld h and there is no cluster.key here to renew it: `flocker ca` does, where that key is", etc, file,
                 (long long)life.left_s / 3600);
    if (rc < 0)
        log_error("%s/%s.crt can't be renewed: %s", etc, file, e.msg);
    return rc < 0 || pki_is_due(&life) ? CHECK_S_MAX : life.left_s - life.whole_s / 3;
}

static void reload(const struct renewal *r)
{
    struct error e = ERROR_INIT;
    AUTO(free) char *crt = xasprintf("%s/control-service.crt", r->paths->etc), *key = xasprintf("%s/control-service.key", r->paths->etc);
    for (size_t i = 0; i < ARRAY_SIZE(r->contexts); i++)
        if (r->contexts[i] && pki_reload(r->contexts[i], crt, key, &e) < 0)
            log_error("the control service's certificate stays as it was: %s", e.msg);
}

static void on_time(evutil_socket_t fd, short what, void *arg)
{
    struct renewal *r = arg;
    int64_t next_s = CHECK_S_MAX;
    (void)fd;
    (void)what;
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        int64_t s = look_at(r, files[i]);
        next_s = s < next_s ? s : next_s;
    }
    reload(r);
    const struct timeval delay = { next_s < 1 ? 1 : next_s, 0 };
    evtimer_add(r->timer, &delay);
}

struct renewal *renewal_new(struct event_base *base, const struct paths *p, struct ssl_ctx_st *rest, struct ssl_ctx_st *agents)
{
    static const struct timeval now = { 0, 0 };
    struct renewal *r = xcalloc(1, sizeof *r);
    *r = (struct renewal){ .paths = p, .contexts = { rest, agents } };
    r->timer = evtimer_new(base, on_time, r);
    evtimer_add(r->timer, &now);
    return r;
}

void renewal_free(struct renewal *r)
{
    event_free(r->timer);
    free(r);
}
