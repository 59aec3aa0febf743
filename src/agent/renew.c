// This node's certificates: a worker looks at the files; for what is due, control signs a new certificate for the old key.
#include "agent/internal.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/pki.h"

#include <event2/event.h>
#include <string.h>

#define CHECK_S_MAX 3600
#define RETRY_S     60 // after control could not, or was not there

static const char *const kinds[] = { "node", "plugin", "engine" };

static void check_in(struct agent *a, int64_t s)
{
    const struct timeval delay = { s < 1 ? 1 : s, 0 };
    evtimer_add(a->renew, &delay);
}

// In the worker: {"csr": {KIND: REQUEST, ...}, "next_s": when to look again, "over": the node's has expired}. Kinds that this host has no
// certificate of are left out.
static int run_look(void *ctx, json_t *result, struct error *e)
{
    const struct agent *a = ctx;
    json_t *csrs = json_object();
    int64_t next_s = CHECK_S_MAX;
    int rc = 0;
    for (size_t i = 0; i < ARRAY_SIZE(kinds) && rc == 0; i++) {
        struct pki_life life;
        AUTO(free) char *csr = NULL;
        if (!pki_has(a->config.pki_dir, kinds[i]) || (rc = pki_life(a->config.pki_dir, kinds[i], &life, e)) < 0)
            continue;
        if (i == 0)
            json_object_set_new(result, "over", json_boolean(life.left_s < 0));
        if (pki_is_due(&life)) {
            rc = pki_make_request(a->config.pki_dir, kinds[i], &csr, e);
            json_object_set_new(csrs, kinds[i], json_string(csr ? csr : ""));
        } else if (life.left_s - life.whole_s / 3 < next_s)
            next_s = life.left_s - life.whole_s / 3;
    }
    json_object_set_new(result, "csr", csrs);
    json_object_set_new(result, "next_s", json_integer(next_s));
    return rc;
}

static int run_install(void *ctx, json_t *result, struct error *e)
{
    const struct agent *a = ctx;
    const char *kind;
    json_t *text;
    int rc = 0;
    (void)result;
    json_object_foreach (a->new_certificates, kind, text)
        for (size_t i = 0; i < ARRAY_SIZE(kinds) && rc == 0; i++)
            if (strcmp(kind, kinds[i]) == 0 && json_is_string(text))
                rc = pki_install(a->config.pki_dir, kind, json_string_value(text), e);
    return rc;
}

static void on_installed(void *arg, int rc, json_t *result, const struct error *e)
{
    struct agent *a = arg;
    (void)result;
    json_decref(TAKE(a->new_certificates, NULL));
    if (rc < 0)
        log_error("new certificates of this node can't be kept: %s", e->msg);
    else
        log_info("this node has new certificates");
    a->certificates_are_new = rc == 0;
    check_in(a, rc < 0 ? RETRY_S : 1); // to take them into use, and to see that nothing is due any more
}

static void on_signed(void *arg, int rc, const json_t *reply, const struct error *e)
{
    struct agent *a = arg;
    if (rc < 0) {
        log_warn("control can't renew this node's certificates: %s", e->msg);
        check_in(a, RETRY_S);
        return;
    }
    a->new_certificates = json_deep_copy(json_object_get(reply, "certificates"));
    const struct worker_task task = { .what = "keep new certificates", .run = run_install, .ctx = a, .done = on_installed, .arg = a };
    worker_start(a->link_workers, &task);
}

static void on_looked(void *arg, int rc, json_t *result, const struct error *e)
{
    struct agent *a = arg;
    json_t *csrs = json_object_get(result, "csr");
    char today[CLOCK_TEXT_SIZE];
    bool are_new = TAKE(a->certificates_are_new, false);
    a->certificate_is_over = json_is_true(json_object_get(result, "over"));
    if (rc < 0)
        log_error("this node's certificates can't be read: %s", e->msg);
    else if (a->config.on_certificates)
        a->config.on_certificates(a->config.on_certificates_arg);
    if (rc == 0 && json_object_size(csrs) == 0)
        check_in(a, json_integer_value(json_object_get(result, "next_s")));
    else if (rc == 0 && are_new) { // whoever signed has another clock, and would sign the same again
        log_warn("this node's new certificates are due for renewal already: its clock, which says %.10s, and control's do not agree",
                 clock_format(clock_wall_ms(), today));
        check_in(a, CHECK_S_MAX);
    } else if (rc == 0 && a->welcome)
        link_request(a, json_pack("{s:s, s:O}", "type", "renew", "csr", csrs), on_signed, a);
    else
        check_in(a, RETRY_S);
}

static void on_time(evutil_socket_t fd, short what, void *arg)
{
    struct agent *a = arg;
    (void)fd;
    (void)what;
    const struct worker_task task = { .what = "look at certificates", .run = run_look, .ctx = a, .done = on_looked, .arg = a };
    worker_start(a->link_workers, &task);
}

void renew_soon(struct agent *a)
{
    bool is_under_way = a->renew_begun && !evtimer_pending(a->renew, NULL);
    if (!a->config.pki_dir || is_under_way)
        return;
    a->renew_begun = true;
    check_in(a, 1);
}

void renew_init(struct agent *a)
{
    a->renew = evtimer_new(a->config.base, on_time, a);
    renew_soon(a);
}

void renew_free(struct agent *a)
{
    json_decref(a->new_certificates);
    event_free(a->renew);
}
