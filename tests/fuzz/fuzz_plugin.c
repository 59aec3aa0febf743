// The body of every plugin call, over any bytes. What is accepted must be fit for use as it is.
#include "fuzz.h"

#include "base/mem.h"
#include "docker/request.h"

#include <string.h>

static void check(const struct plugin_request *r, enum plugin_call call, size_t size)
{
    struct error e = ERROR_INIT;
    ASSERT(r->call == call);
    ASSERT(strnlen(r->name, sizeof r->name) < sizeof r->name && strnlen(r->id, sizeof r->id) < sizeof r->id);
    if (r->empty)
        ASSERT(size == 0 && !r->name[0] && !r->id[0]);
    if (call != CALL_CREATE || r->empty)
        return;
    ASSERT(volume_name_check(r->name, &e) == 0 && volume_size_check(r->size, &e) == 0);
    ASSERT(r->options.mode <= 07777 && r->options.uid != UINT32_MAX && r->options.gid != UINT32_MAX);
    json_t *metadata = metadata_to_json(&r->metadata);
    struct metadata back = { 0, NULL };
    ASSERT(metadata_from_json(metadata, &back, &e) == 0 && metadata_equal(&back, &r->metadata));
    metadata_done(&back);
    json_decref(metadata);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (int c = 0; c < CALL_COUNT; c++) {
        struct error e = ERROR_INIT;
        struct plugin_request r;
        int rc = plugin_request_read((enum plugin_call)c, (const char *)data, size, &r, &e);
        if (rc < 0)
            ASSERT(rc == -E_INVALID && e.msg[0]);
        else
            check(&r, (enum plugin_call)c, size);
        plugin_request_done(&r); // also after an error
    }
    AUTO(free) char *path = xcalloc(size + 1, 1);
    memcpy(path, data, size);
    ASSERT((unsigned)plugin_call_of(path) <= CALL_COUNT);
    return 0;
}
