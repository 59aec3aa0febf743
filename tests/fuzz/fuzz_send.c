// Send streams as they come from another node. The first byte says in what pieces; the rest is the stream. Checksums are put right first, or
// nothing but the header would ever be looked at. What the parser lets through keeps its promises, however the bytes are cut.
#include "fuzz.h"

#include "base/crc32c.h"
#include "base/mem.h"
#include "sys/send_stream.h"

#include <string.h>

struct seen {
    size_t n;
    uint32_t digest; // of all that was said
};

static void check_path(const char *path)
{
    ASSERT(strlen(path) <= SEND_PATH_BYTES_MAX && path[0] != '/' && strcmp(path, ".") != 0 && strcmp(path, "..") != 0);
    ASSERT(!strstr(path, "//") && !strstr(path, "/../") && strncmp(path, "../", 3) != 0);
}

static int on_command(void *arg, const struct send_command *c, struct error *e)
{
    (void)e;
    struct seen *s = arg;
    ASSERT(c->verb >= SEND_SUBVOLUME && c->verb < SEND_VERB_END && (c->path || c->verb == SEND_END));
    if (c->path)
        check_path(c->path);
    if (c->other && c->verb != SEND_SYMLINK)
        check_path(c->other);
    ASSERT(c->offset <= INT64_MAX && c->length <= INT64_MAX - c->offset && c->n <= SEND_COMMAND_BYTES_MAX && c->atime.tv_nsec < 1000000000);
    s->n++;
    s->digest = crc32c(s->digest, &c->verb, sizeof c->verb);
    s->digest = crc32c(s->digest, c->path ? c->path : "", c->path ? strlen(c->path) : 0);
    s->digest = crc32c(s->digest, c->data, c->n);
    s->digest = crc32c(s->digest, &c->offset, sizeof c->offset);
    return 0;
}

static void mend(uint8_t *data, size_t size)
{
    static const uint8_t zeros[4];
    for (size_t at = SEND_HEADER_BYTES; at < size && size - at >= 10;) {
        uint32_t n, crc;
        memcpy(&n, data + at, sizeof n);
        if (n > size - at - 10)
            return;
        memcpy(data + at + 6, zeros, sizeof zeros);
        crc = crc32c(0, data + at, 10 + n);
        memcpy(data + at + 6, &crc, sizeof crc);
        at += 10 + n;
    }
}

static int parse(const uint8_t *data, size_t size, size_t piece, struct seen *ret)
{
    struct error e = ERROR_INIT;
    AUTO(send_stream_free) struct send_stream *s = send_stream_new(on_command, ret);
    int rc = 0;
    for (size_t at = 0; rc == 0 && at < size; at += piece)
        rc = send_stream_feed(s, data + at, size - at < piece ? size - at : piece, &e);
    ASSERT(rc == 0 || ((rc == -E_CORRUPT || rc == -E_UNSUPPORTED) && e.msg[0]));
    return rc;
}

// The first half in one parser, the rest in another.
static int parse_in_two(const uint8_t *data, size_t size, size_t half, struct seen *ret)
{
    struct error e = ERROR_INIT;
    AUTO(send_stream_free) struct send_stream *a = send_stream_new(on_command, ret);
    AUTO(send_stream_free) struct send_stream *b = send_stream_new(on_command, ret);
    int rc = send_stream_feed(a, data, half, &e);
    size_t n;
    const uint8_t *pending = send_stream_pending(a, &n);
    if (rc == 0)
        rc = send_stream_restore(b, send_stream_version(a), send_stream_has_ended(a), pending, n, &e);
    return rc < 0 ? rc : send_stream_feed(b, data + half, size - half, &e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    size_t piece = data[0] ? data[0] : 1;
    size--;
    AUTO(free) uint8_t *copy = xcalloc(1, size);
    memcpy(copy, data + 1, size);
    mend(copy, size);
    struct seen whole = { 0, 0 }, cut = { 0, 0 }, two = { 0, 0 };
    int rc = parse(copy, size, size + 1, &whole);
    ASSERT(parse(copy, size, piece, &cut) == rc && cut.n == whole.n && cut.digest == whole.digest);
    ASSERT(parse_in_two(copy, size, size * piece / 256, &two) == rc && two.n == whole.n && two.digest == whole.digest);
    return 0;
}
