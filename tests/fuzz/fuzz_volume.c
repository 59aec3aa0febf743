// Volumes and references as they come from disk, store and peers: JSON in any shape. What is accepted can be written
// again, and comes back the same.
#include "fuzz.h"

#include "base/mem.h"
#include "model/json.h"
#include "model/volume.h"
#include "plan/refs.h"
#include "plan/step.h"

#include <string.h>

DEFINE_AUTO(json_t *, json_decref)

static void try_volume(const json_t *object)
{
    struct error e = ERROR_INIT;
    AUTO(volume_free) struct volume *v = NULL, *back = NULL;
    int rc = volume_from_json(object, &v, &e);
    ASSERT(rc == 0 ? v != NULL : rc == -E_INVALID && !v && e.msg[0]);
    if (!v)
        return;
    AUTO(json_decref) json_t *out = volume_to_json(v);
    ASSERT(volume_from_json(out, &back, &e) == 0);
    AUTO(json_decref) json_t *again = volume_to_json(back);
    ASSERT(json_equal(out, again));
    const struct volume_here here = { .record = back, .mounted = v->born, .mount_wanted = v->keep_mounted };
    ASSERT((unsigned)plan_step(v, &here, &v->target) < STEP_COUNT);
}

static bool is_dead(struct engine engine)
{
    return engine.pid & 1;
}

static void try_refs(const json_t *array)
{
    struct error e = ERROR_INIT;
    struct refs r = { 0, NULL }, back = { 0, NULL };
    int rc = refs_from_json(array, &r, &e);
    if (rc < 0) {
        ASSERT(rc == -E_CORRUPT && r.n == 0 && !r.items);
        return;
    }
    AUTO(json_decref) json_t *out = refs_to_json(&r);
    ASSERT(refs_from_json(out, &back, &e) == 0 && back.n == r.n && refs_total(&back) == refs_total(&r));
    for (size_t i = 0; i < r.n; i++)
        ASSERT(strcmp(r.items[i].id, back.items[i].id) == 0 && engine_equal(r.items[i].engine, back.items[i].engine));
    ASSERT((r.n == 0) == (refs_total(&r) == 0));
    refs_has_doubtful(&r, is_dead, INT64_MAX);
    refs_reap(&r, is_dead, INT64_MAX);
    ASSERT(refs_total(&r) <= refs_total(&back));
    if (back.n) {
        uint32_t total = refs_total(&back);
        ASSERT(refs_release(&back, back.items[0].id, (struct engine){ 1, 1 }));
        ASSERT(refs_total(&back) == total - 1 || total == UINT32_MAX);
    }
    refs_done(&r);
    refs_done(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error e = ERROR_INIT;
    AUTO(json_decref) json_t *value = NULL;
    if (json_read((const char *)data, size, &value, &e) < 0)
        return 0;
    try_volume(value);
    try_refs(value);
    return 0;
}
