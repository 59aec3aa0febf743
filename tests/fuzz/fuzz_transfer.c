// What two agents send each other on port 4525, in both directions: a line, then frames. What is accepted keeps its limits, can be written
// again, and comes back the same.
#include "fuzz.h"

#include "base/mem.h"
#include "transfer/frame.h"

#include <string.h>

static const struct transfer_request asked = {
    .volume = { { 1 } }, .epoch = 3, .base = 4, .part_seq = 5, .part = { .offset = 3 * TRANSFER_CHUNK }
};

static void try_request(const char *line)
{
    struct error e = ERROR_INIT;
    struct transfer_request r, back;
    char text[TRANSFER_LINE_MAX], again[TRANSFER_LINE_MAX];
    int rc = transfer_read_request(line, &r, &e);
    ASSERT(rc == 0 || ((rc == -E_INVALID || rc == -E_UNSUPPORTED) && e.msg[0]));
    if (rc < 0)
        return;
    ASSERT(r.epoch >= 1 && (r.part_seq == 0 || (r.part_seq > r.base && r.part.offset)));
    transfer_write_request(&r, text);
    ASSERT(transfer_read_request(text, &back, &e) == 0);
    transfer_write_request(&back, again);
    ASSERT(strcmp(text, again) == 0);
}

static void try_answer(const char *line)
{
    struct error e = ERROR_INIT;
    struct transfer_answer a, back;
    char text[TRANSFER_LINE_MAX];
    bool is_refused = false;
    int rc = transfer_read_answer(line, &asked, &a, &is_refused, &e);
    ASSERT(rc == 0 || (e.code != E_NONE && (is_refused || rc == -E_INVALID)));
    if (rc < 0) {
        for (const char *p = e.msg; *p; p++)
            ASSERT(!is_refused || ((unsigned char)*p >= ' ' && *p != 0x7f)); // it goes to logs and terminals
        return;
    }
    ASSERT(a.seq >= a.base && (a.base == 0 || a.base == asked.base) && (a.offset == 0 || (a.offset == asked.part.offset && a.seq == 5)));
    transfer_write_answer(&a, text);
    ASSERT(transfer_read_answer(text, &asked, &back, &is_refused, &e) == 0);
    ASSERT(a.seq == back.seq && a.base == back.base && a.offset == back.offset && a.estimate == back.estimate && a.final == back.final);
}

// A stream of frames, as a target takes them.
static void try_frames(const uint8_t *data, size_t size)
{
    struct chain chain = { 0 };
    while (size >= FRAME_HEADER) {
        struct error e = ERROR_INIT;
        struct frame f;
        uint8_t header[FRAME_HEADER];
        if (frame_read(data, &f, &e) < 0) {
            ASSERT(e.code == E_CORRUPT && e.msg[0]);
            return;
        }
        ASSERT(f.bytes <= TRANSFER_CHUNK && f.wire_bytes <= f.bytes && f.offset <= TRANSFER_BYTES_MAX);
        frame_write(&f, header);
        ASSERT(memcmp(header, data, FRAME_HEADER) == 0);
        data += FRAME_HEADER;
        size -= FRAME_HEADER;
        if (f.wire_bytes > size)
            return;
        if ((f.kind == FRAME_DATA || f.kind == FRAME_END) && frame_check_place(&f, &chain, &e) < 0)
            return;
        if (f.kind == FRAME_DATA && !f.compressed)
            chain_add(&chain, data, f.bytes);
        if (f.kind == FRAME_ERROR)
            ASSERT(frame_read_error((const char *)data, f.bytes, &e) < 0);
        data += f.wire_bytes;
        size -= f.wire_bytes;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size ? memchr(data, '\n', size) : NULL;
    size_t n = end ? (size_t)(end - data) : size;
    if (n < TRANSFER_LINE_MAX) {
        AUTO(free) char *line = xstrndup((const char *)data, n);
        try_request(line);
        try_answer(line);
    }
    if (end)
        try_frames(end + 1, size - n - 1);
    try_frames(data, size);
    return 0;
}
