#include "transfer/frame.h"

#include "base/mem.h"
#include "model/json.h"

#include <jansson.h>
#include <string.h>

#include <openssl/evp.h>
#define XXH_INLINE_ALL // nothing to link
#include <xxhash.h>

DEFINE_AUTO(json_t *, json_decref)

// ---- the chain of digests

void chain_add(struct chain *c, const void *data, size_t n)
{
    struct {
        uint8_t before[CHAIN_DIGEST];
        XXH128_canonical_t chunk;
    } both;
    ASSERT(n > 0 && n <= TRANSFER_CHUNK && c->offset % TRANSFER_CHUNK == 0);
    memcpy(both.before, c->digest, CHAIN_DIGEST);
    XXH128_canonicalFromHash(&both.chunk, XXH3_128bits(data, n));
    int rc = EVP_Digest(&both, sizeof both, c->digest, NULL, EVP_sha256(), NULL);
    ASSERT(rc == 1);
    c->offset += n;
}

bool chain_equal(const struct chain *a, const struct chain *b)
{
    return a->offset == b->offset && memcmp(a->digest, b->digest, CHAIN_DIGEST) == 0;
}

// ---- lines

#define HEX_SIZE (2 * CHAIN_DIGEST + 1)

static const char *hex_write(const uint8_t digest[CHAIN_DIGEST], char ret[HEX_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < CHAIN_DIGEST; i++) {
        ret[2 * i] = digits[digest[i] >> 4];
        ret[2 * i + 1] = digits[digest[i] & 15];
    }
    ret[HEX_SIZE - 1] = '\0';
    return ret;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int read_digest(const json_t *object, uint8_t ret[CHAIN_DIGEST], struct error *e)
{
    const json_t *value = json_object_get(object, "digest");
    const char *text = json_string_value(value);
    if (!text || json_string_length(value) != HEX_SIZE - 1)
        return fail(e, E_INVALID, "\"digest\" must be %d hexadecimal digits", HEX_SIZE - 1);
    for (size_t i = 0; i < CHAIN_DIGEST; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return fail(e, E_INVALID, "\"digest\" must be %d hexadecimal digits", HEX_SIZE - 1);
        ret[i] = (uint8_t)(high << 4 | low);
    }
    return 0;
}

static int read_number(const json_t *object, const char *name, uint64_t min, uint64_t max, uint64_t *ret, struct error *e)
{
    const json_t *value = json_object_get(object, name);
    json_int_t n = json_integer_value(value);
    if (!json_is_integer(value) || n < 0 || (uint64_t)n < min || (uint64_t)n > max)
        return fail(e, E_INVALID, "\"%s\" must be a number from %llu to %llu", name, (unsigned long long)min, (unsigned long long)max);
    *ret = (uint64_t)n;
    return 0;
}

static int read_object(const char *line, json_t **ret, struct error *e)
{
    AUTO(json_decref) json_t *object = NULL;
    int rc = json_read(line, strlen(line), &object, e);
    if (rc < 0)
        return rc;
    if (!json_is_object(object))
        return fail(e, E_INVALID, "not a JSON object");
    *ret = TAKE(object, NULL);
    return 0;
}

static void write_line(json_t *object, char ret[TRANSFER_LINE_MAX])
{
    ASSERT(object);
    size_t n = json_dumpb(object, ret, TRANSFER_LINE_MAX - 1, JSON_COMPACT);
    ASSERT(n > 0 && n < TRANSFER_LINE_MAX);
    ret[n] = '\0';
    json_decref(object);
}

void transfer_write_request(const struct transfer_request *r, char ret[TRANSFER_LINE_MAX])
{
    char hex[HEX_SIZE];
    json_t *object = json_pack("{s:s, s:i, s:s, s:I}", "type", "fetch", "protocol", TRANSFER_PROTOCOL, "volume", UUID_TEXT(&r->volume),
                               "epoch", (json_int_t)r->epoch);
    int rc = 0;
    if (r->base)
        rc = json_object_set_new(object, "base",
                                 json_pack("{s:I, s:s}", "seq", (json_int_t)r->base, "digest", hex_write(r->base_digest, hex)));
    if (rc == 0 && r->part_seq)
        rc = json_object_set_new(object, "part", json_pack("{s:I, s:I, s:s}", "seq", (json_int_t)r->part_seq, "offset",
                                                           (json_int_t)r->part.offset, "digest", hex_write(r->part.digest, hex)));
    ASSERT(rc == 0);
    write_line(object, ret);
}

static int read_base(const json_t *object, struct transfer_request *r, struct error *e)
{
    const json_t *base = json_object_get(object, "base");
    int rc = base ? read_number(base, "seq", 1, INT64_MAX, &r->base, e) : 0;
    return !base || rc < 0 ? rc : read_digest(base, r->base_digest, e);
}

static int read_part(const json_t *object, struct transfer_request *r, struct error *e)
{
    const json_t *part = json_object_get(object, "part");
    if (!part)
        return 0;
    int rc = read_number(part, "seq", r->base + 1, INT64_MAX, &r->part_seq, e);
    if (rc < 0 || (rc = read_number(part, "offset", 1, TRANSFER_BYTES_MAX, &r->part.offset, e)) < 0)
        return rc;
    return read_digest(part, r->part.digest, e);
}

int transfer_read_request(const char *line, struct transfer_request *ret, struct error *e)
{
    AUTO(json_decref) json_t *object = NULL;
    struct transfer_request r = { 0 };
    uint64_t protocol = 0;
    int rc = read_object(line, &object, e);
    if (rc < 0)
        return fail_ctx(e, rc, "request");
    const char *type = json_string_value(json_object_get(object, "type")), *id = json_string_value(json_object_get(object, "volume"));
    if (!type || strcmp(type, "fetch") != 0)
        return fail(e, E_INVALID, "request: \"type\" must be \"fetch\"");
    if ((rc = read_number(object, "protocol", 1, UINT32_MAX, &protocol, e)) < 0)
        return fail_ctx(e, rc, "request");
    if (protocol != TRANSFER_PROTOCOL)
        return fail(e, E_UNSUPPORTED, "this agent speaks version %d of the transfer protocol, the other one %llu: upgrade the older one",
                    TRANSFER_PROTOCOL, (unsigned long long)protocol);
    if (!id || !uuid_parse(id, &r.volume))
        return fail(e, E_INVALID, "request: \"volume\" must be a UUID");
    if ((rc = read_number(object, "epoch", 1, INT64_MAX, &r.epoch, e)) < 0 || (rc = read_base(object, &r, e)) < 0 ||
        (rc = read_part(object, &r, e)) < 0)
        return fail_ctx(e, rc, "request");
    *ret = r;
    return 0;
}

void transfer_write_answer(const struct transfer_answer *a, char ret[TRANSFER_LINE_MAX])
{
    write_line(json_pack("{s:I, s:I, s:I, s:I, s:b}", "seq", (json_int_t)a->seq, "base", (json_int_t)a->base, "offset",
                         (json_int_t)a->offset, "estimate", (json_int_t)a->estimate, "final", a->final),
               ret);
}

void transfer_write_refusal(const struct error *why, char ret[TRANSFER_LINE_MAX])
{
    write_line(json_pack("{s:o}", "error", json_from_error(why)), ret);
}

// What the other end says goes to logs and terminals here: without control characters.
static int read_refusal(const json_t *object, struct error *e)
{
    int rc = json_read_error(object, e);
    for (char *p = e->msg; rc < 0 && *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
    return rc < 0 ? fail_ctx(e, rc, "the source says") : 0;
}

int transfer_read_answer(const char *line, const struct transfer_request *asked, struct transfer_answer *ret, bool *ret_refused,
                         struct error *e)
{
    AUTO(json_decref) json_t *object = NULL;
    struct transfer_answer a = { 0 };
    *ret_refused = false;
    int rc = read_object(line, &object, e);
    if (rc < 0)
        return fail_ctx(e, rc, "answer");
    if ((rc = read_refusal(object, e)) < 0) {
        *ret_refused = true;
        return rc;
    }
    const json_t *final = json_object_get(object, "final");
    if ((rc = read_number(object, "seq", 1, INT64_MAX, &a.seq, e)) < 0 || (rc = read_number(object, "base", 0, a.seq, &a.base, e)) < 0 ||
        (rc = read_number(object, "offset", 0, TRANSFER_BYTES_MAX, &a.offset, e)) < 0 ||
        (rc = read_number(object, "estimate", 0, INT64_MAX, &a.estimate, e)) < 0)
        return fail_ctx(e, rc, "answer");
    if (!json_is_boolean(final))
        return fail(e, E_INVALID, "answer: \"final\" must be true or false");
    a.final = json_is_true(final);
    if (a.base && a.base != asked->base)
        return fail(e, E_INVALID, "answer: snapshot %llu is sent against number %llu, which isn't here", (unsigned long long)a.seq,
                    (unsigned long long)a.base);
    if (a.offset && (a.offset != asked->part.offset || a.seq != asked->part_seq || a.base != asked->base))
        return fail(e, E_INVALID, "answer: it goes on at byte %llu of snapshot %llu, where we aren't", (unsigned long long)a.offset,
                    (unsigned long long)a.seq);
    *ret = a;
    return 0;
}

// ---- frames: kind, compressed, 0, 0; then numbers with the highest byte first: wire_bytes (4), bytes (4), offset (8)

static void put_number(uint8_t *p, size_t bytes, uint64_t n)
{
    for (size_t i = bytes; i > 0; i--, n >>= 8)
        p[i - 1] = (uint8_t)n;
}

static uint64_t get_number(const uint8_t *p, size_t bytes)
{
    uint64_t n = 0;
    for (size_t i = 0; i < bytes; i++)
        n = n << 8 | p[i];
    return n;
}

void frame_write(const struct frame *f, uint8_t ret[FRAME_HEADER])
{
    ret[0] = (uint8_t)f->kind;
    ret[1] = f->compressed;
    ret[2] = ret[3] = 0;
    put_number(ret + 4, 4, f->wire_bytes);
    put_number(ret + 8, 4, f->bytes);
    put_number(ret + 12, 8, f->offset);
}

// Payloads that each kind may have.
static const struct {
    uint32_t min, max;
} payloads[] = {
    [FRAME_DATA] = { 1, TRANSFER_CHUNK },
    [FRAME_END] = { CHAIN_DIGEST, CHAIN_DIGEST },
    [FRAME_AGAIN] = { 0, 0 },
    [FRAME_ERROR] = { 2, TRANSFER_LINE_MAX - 1 },
    [FRAME_ALIVE] = { 0, 0 },
};

int frame_read(const uint8_t header[FRAME_HEADER], struct frame *ret, struct error *e)
{
    unsigned kind = header[0];
    if (kind < FRAME_DATA || kind >= ARRAY_SIZE(payloads) || header[1] > 1 || header[2] || header[3])
        return fail(e, E_CORRUPT, "frame: bytes %02x %02x %02x %02x begin none", header[0], header[1], header[2], header[3]);
    struct frame f = {
        .kind = (enum frame_kind)kind,
        .compressed = header[1],
        .wire_bytes = (uint32_t)get_number(header + 4, 4),
        .bytes = (uint32_t)get_number(header + 8, 4),
        .offset = get_number(header + 12, 8),
    };
    if (f.bytes < payloads[kind].min || f.bytes > payloads[kind].max)
        return fail(e, E_CORRUPT, "frame of kind %u: %u bytes are too %s", kind, f.bytes, f.bytes < payloads[kind].min ? "few" : "many");
    if (f.compressed ? kind != FRAME_DATA || f.wire_bytes == 0 || f.wire_bytes >= f.bytes : f.wire_bytes != f.bytes)
        return fail(e, E_CORRUPT, "frame of kind %u: a payload of %u bytes doesn't fit to %u", kind, f.wire_bytes, f.bytes);
    if (f.offset > TRANSFER_BYTES_MAX || (f.offset && kind != FRAME_DATA && kind != FRAME_END))
        return fail(e, E_CORRUPT, "frame of kind %u: byte %llu is no place for it", kind, (unsigned long long)f.offset);
    *ret = f;
    return 0;
}

int frame_check_place(const struct frame *f, const struct chain *c, struct error *e)
{
    ASSERT(f->kind == FRAME_DATA || f->kind == FRAME_END);
    if (f->offset != c->offset)
        return fail(e, E_CORRUPT, "the stream goes on at byte %llu after byte %llu", (unsigned long long)f->offset,
                    (unsigned long long)c->offset);
    if (f->kind == FRAME_DATA && c->offset % TRANSFER_CHUNK)
        return fail(e, E_CORRUPT, "the stream goes on after a chunk that was short, at byte %llu", (unsigned long long)c->offset);
    return 0;
}

int frame_read_error(const char *payload, size_t n, struct error *e)
{
    AUTO(json_decref) json_t *object = NULL;
    int rc = json_read(payload, n, &object, e);
    if (rc < 0)
        return fail_ctx(e, rc, "the source's error");
    rc = read_refusal(object, e);
    return rc < 0 ? rc : fail(e, E_CORRUPT, "the source's error says nothing");
}
