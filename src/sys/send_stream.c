#include "sys/send_stream.h"

#include "base/crc32c.h"

#include <endian.h>
#include <inttypes.h>
#include <string.h>

#define MAGIC          "btrfs-stream" // with its NUL
#define COMMAND_HEADER 10             // length (4), number (2), checksum (4)
#define XATTR_NAME_MAX_BYTES 255

_Static_assert(sizeof MAGIC + 4 == SEND_HEADER_BYTES, "the header is the magic and a version");

// ---- attributes --------------------------------------------------------------------------------------------------------------

enum attribute {
    A_UUID = 1, A_CTRANSID, A_INO, A_SIZE, A_MODE, A_UID, A_GID, A_RDEV, A_CTIME, A_MTIME, A_ATIME, A_OTIME, A_XATTR_NAME, A_XATTR_DATA,
    A_PATH, A_PATH_TO, A_PATH_LINK, A_FILE_OFFSET, A_DATA, A_CLONE_UUID, A_CLONE_CTRANSID, A_CLONE_PATH, A_CLONE_OFFSET, A_CLONE_LEN,
    A_FALLOCATE_MODE, A_FILEATTR, A_UNENCODED_FILE_LEN, A_UNENCODED_LEN, A_UNENCODED_OFFSET, A_COMPRESSION, A_ENCRYPTION, A_END
};

enum kind {
    K_NONE,
    K_U32,
    K_U64,
    K_UUID,
    K_TIME,  // seconds (8), nanoseconds (4)
    K_PATH,  // without "." and ".."
    K_TEXT,  // any bytes but NUL, at least one
    K_XATTR, // likewise, a name
    K_DATA,
};

static const struct {
    enum kind kind;
    const char *word;
} attributes[A_END] = {
    [A_UUID] = { K_UUID, "uuid" },
    [A_CTRANSID] = { K_U64, "transaction" },
    [A_INO] = { K_U64, "inode" },
    [A_SIZE] = { K_U64, "size" },
    [A_MODE] = { K_U64, "mode" },
    [A_UID] = { K_U64, "uid" },
    [A_GID] = { K_U64, "gid" },
    [A_RDEV] = { K_U64, "device" },
    [A_CTIME] = { K_TIME, "ctime" },
    [A_MTIME] = { K_TIME, "mtime" },
    [A_ATIME] = { K_TIME, "atime" },
    [A_OTIME] = { K_TIME, "otime" },
    [A_XATTR_NAME] = { K_XATTR, "xattr name" },
    [A_XATTR_DATA] = { K_DATA, "xattr data" },
    [A_PATH] = { K_PATH, "path" },
    [A_PATH_TO] = { K_PATH, "new path" },
    [A_PATH_LINK] = { K_TEXT, "link" }, // a path in SEND_LINK, see there
    [A_FILE_OFFSET] = { K_U64, "offset" },
    [A_DATA] = { K_DATA, "data" },
    [A_CLONE_UUID] = { K_UUID, "source's uuid" },
    [A_CLONE_CTRANSID] = { K_U64, "source's transaction" },
    [A_CLONE_PATH] = { K_PATH, "source's path" },
    [A_CLONE_OFFSET] = { K_U64, "source's offset" },
    [A_CLONE_LEN] = { K_U64, "length" },
    [A_FALLOCATE_MODE] = { K_U32, "fallocate mode" },
    [A_FILEATTR] = { K_U64, "flags" },
    [A_UNENCODED_FILE_LEN] = { K_U64, "unencoded file length" },
    [A_UNENCODED_LEN] = { K_U64, "unencoded length" },
    [A_UNENCODED_OFFSET] = { K_U64, "unencoded offset" },
    [A_COMPRESSION] = { K_U32, "compression" },
    [A_ENCRYPTION] = { K_U32, "encryption" },
};

#define BIT(a) (1U << (A_##a))
#define NEW    (BIT(INO) | BIT(MODE) | BIT(RDEV)) // what the kernel says of any inode that it makes

_Static_assert(A_END <= 32, "a set of attributes is a word");

static const char *const words[SEND_VERB_END] = {
#define X(verb, word, number) [verb] = word,
    SEND_COMMAND_TABLE(X)
#undef X
};

static const struct {
    uint32_t needs, may; // sets of attributes
} rules[SEND_VERB_END] = {
    [SEND_SUBVOLUME] = { BIT(PATH) | BIT(UUID) | BIT(CTRANSID), 0 },
    [SEND_SNAPSHOT] = { BIT(PATH) | BIT(UUID) | BIT(CTRANSID) | BIT(CLONE_UUID) | BIT(CLONE_CTRANSID), 0 },
    [SEND_MKFILE] = { BIT(PATH), NEW },
    [SEND_MKDIR] = { BIT(PATH), NEW },
    [SEND_MKNOD] = { BIT(PATH) | BIT(MODE) | BIT(RDEV), NEW },
    [SEND_MKFIFO] = { BIT(PATH), NEW },
    [SEND_MKSOCK] = { BIT(PATH), NEW },
    [SEND_SYMLINK] = { BIT(PATH) | BIT(PATH_LINK), NEW },
    [SEND_RENAME] = { BIT(PATH) | BIT(PATH_TO), 0 },
    [SEND_LINK] = { BIT(PATH) | BIT(PATH_LINK), 0 },
    [SEND_UNLINK] = { BIT(PATH), 0 },
    [SEND_RMDIR] = { BIT(PATH), 0 },
    [SEND_SET_XATTR] = { BIT(PATH) | BIT(XATTR_NAME) | BIT(XATTR_DATA), 0 },
    [SEND_REMOVE_XATTR] = { BIT(PATH) | BIT(XATTR_NAME), 0 },
    [SEND_WRITE] = { BIT(PATH) | BIT(FILE_OFFSET) | BIT(DATA), 0 },
    [SEND_CLONE] = { BIT(PATH) | BIT(FILE_OFFSET) | BIT(CLONE_LEN) | BIT(CLONE_UUID) | BIT(CLONE_CTRANSID) | BIT(CLONE_PATH) |
                     BIT(CLONE_OFFSET), 0 },
    [SEND_TRUNCATE] = { BIT(PATH) | BIT(SIZE), 0 },
    [SEND_CHMOD] = { BIT(PATH) | BIT(MODE), 0 },
    [SEND_CHOWN] = { BIT(PATH) | BIT(UID) | BIT(GID), 0 },
    [SEND_UTIMES] = { BIT(PATH) | BIT(ATIME) | BIT(MTIME), BIT(CTIME) | BIT(OTIME) },
    [SEND_END] = { 0, 0 },
    [SEND_UPDATE_EXTENT] = { BIT(PATH) | BIT(FILE_OFFSET) | BIT(SIZE), 0 },
    [SEND_FALLOCATE] = { BIT(PATH) | BIT(FALLOCATE_MODE) | BIT(FILE_OFFSET) | BIT(SIZE), 0 },
    [SEND_FILEATTR] = { BIT(PATH) | BIT(FILEATTR), 0 },
    [SEND_ENCODED_WRITE] = { BIT(PATH) | BIT(FILE_OFFSET) | BIT(UNENCODED_FILE_LEN) | BIT(UNENCODED_LEN) | BIT(UNENCODED_OFFSET) | BIT(DATA),
                             BIT(COMPRESSION) | BIT(ENCRYPTION) },
};

const char *send_verb_word(enum send_verb v)
{
    return (unsigned)v < SEND_VERB_END && words[v] ? words[v] : "unknown";
}

// ---- the parser --------------------------------------------------------------------------------------------------------------

struct value {
    const uint8_t *data;
    size_t n;
};

struct send_stream {
    send_callback on_command;
    void *arg;
    uint32_t version; // 0: the header isn't whole yet
    bool has_ended;
    uint64_t position; // in the stream, of what is looked at
    uint8_t *pending;  // an unfinished command, or header
    size_t n, room;
    struct value values[A_END];
    char path[SEND_PATH_BYTES_MAX + 1], other[SEND_PATH_BYTES_MAX + 1], xattr[XATTR_NAME_MAX_BYTES + 1];
};

struct send_stream *send_stream_new(send_callback on_command, void *arg)
{
    struct send_stream *s = xcalloc(1, sizeof *s);
    s->on_command = on_command;
    s->arg = arg;
    return s;
}

void send_stream_free(struct send_stream *s)
{
    free(s->pending);
    free(s);
}

bool send_stream_has_ended(const struct send_stream *s)
{
    return s->has_ended;
}

uint32_t send_stream_version(const struct send_stream *s)
{
    return s->version;
}

const uint8_t *send_stream_pending(const struct send_stream *s, size_t *ret_n)
{
    *ret_n = s->n;
    return s->pending;
}

static uint16_t read_16(const uint8_t *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static uint32_t read_32(const uint8_t *at)
{
    uint32_t v;
    memcpy(&v, at, sizeof v);
    return le32toh(v);
}

static uint64_t read_64(const uint8_t *at)
{
    uint64_t v;
    memcpy(&v, at, sizeof v);
    return le64toh(v);
}

static int fail_at(const struct send_stream *s, const char *what, const char *of, struct error *e)
{
    return fail(e, E_CORRUPT, "send stream, byte %" PRIu64 ": %s%s%s", s->position, what, of ? ": " : "", of ? of : "");
}

// ---- values ------------------------------------------------------------------------------------------------------------------

static bool is_dots(const char *part, size_t n)
{
    return (n == 1 && part[0] == '.') || (n == 2 && part[0] == '.' && part[1] == '.');
}

// Components that are not empty and neither "." nor ".."; or nothing at all: the root.
static bool is_path(const char *text)
{
    if (!*text)
        return true;
    for (const char *part = text;;) {
        size_t n = strcspn(part, "/");
        if (n == 0 || is_dots(part, n))
            return false;
        if (!part[n])
            return true;
        part += n + 1;
    }
}

static bool take_text(const struct value *v, char *ret, size_t max)
{
    if (v->n > max || memchr(v->data, '\0', v->n))
        return false;
    memcpy(ret, v->data, v->n);
    ret[v->n] = '\0';
    return true;
}

static bool has_right_size(enum kind kind, size_t n)
{
    static const size_t sizes[] = { [K_U32] = 4, [K_U64] = 8, [K_UUID] = 16, [K_TIME] = 12 };
    return kind > K_TIME || n == sizes[kind];
}

// Cuts a command's attributes; *ret_seen is the set of them.
static int cut(struct send_stream *s, enum send_verb verb, const uint8_t *at, size_t n, uint32_t *ret_seen, struct error *e)
{
    uint32_t seen = 0, allowed = rules[verb].needs | rules[verb].may;
    while (n > 0) {
        bool has_length = n >= 2 && !(s->version >= 2 && read_16(at) == A_DATA);
        size_t head = has_length ? 4 : 2;
        if (n < head)
            return fail_at(s, "an attribute is cut off", words[verb], e);
        unsigned number = read_16(at);
        size_t length = has_length ? read_16(at + 2) : n - head;
        if (number >= A_END || !(allowed & 1U << number) || seen & 1U << number)
            return fail_at(s, "an attribute that isn't expected", words[verb], e);
        if (length > n - head || !has_right_size(attributes[number].kind, length))
            return fail_at(s, "an attribute has a wrong length", attributes[number].word, e);
        seen |= 1U << number;
        s->values[number] = (struct value){ at + head, length };
        at += head + length;
        n -= head + length;
    }
    if ((seen & rules[verb].needs) != rules[verb].needs)
        return fail_at(s, "an attribute is missing", words[verb], e);
    *ret_seen = seen;
    return 0;
}

static int take_texts(struct send_stream *s, uint32_t seen, struct send_command *c, struct error *e)
{
    static const enum attribute others[] = { A_PATH_TO, A_PATH_LINK, A_CLONE_PATH };
    if (seen & BIT(PATH)) {
        if (!take_text(&s->values[A_PATH], s->path, SEND_PATH_BYTES_MAX) || !is_path(s->path))
            return fail_at(s, "not a path", words[c->verb], e);
        c->path = s->path;
    }
    for (size_t i = 0; i < ARRAY_SIZE(others); i++)
        if (seen & 1U << others[i]) {
            bool is_good = take_text(&s->values[others[i]], s->other, SEND_PATH_BYTES_MAX) &&
                           (c->verb == SEND_SYMLINK ? s->other[0] != '\0' : is_path(s->other));
            if (!is_good)
                return fail_at(s, "not a path", attributes[others[i]].word, e);
            c->other = s->other;
        }
    if (seen & BIT(XATTR_NAME)) {
        if (!take_text(&s->values[A_XATTR_NAME], s->xattr, XATTR_NAME_MAX_BYTES) || !s->xattr[0])
            return fail_at(s, "not the name of an attribute", words[c->verb], e);
        c->xattr = s->xattr;
    }
    return 0;
}

// The number of an attribute, at most `max`; what is missing is 0.
static bool take_number(const struct send_stream *s, uint32_t seen, enum attribute a, uint64_t max, uint64_t *ret)
{
    *ret = 0;
    if (seen & 1U << a)
        *ret = attributes[a].kind == K_U32 ? read_32(s->values[a].data) : read_64(s->values[a].data);
    return *ret <= max;
}

static int take_small_numbers(const struct send_stream *s, uint32_t seen, struct send_command *c, struct error *e)
{
    uint64_t mode, uid, gid;
    if (!take_number(s, seen, A_MODE, c->verb == SEND_CHMOD ? 07777 : 0177777, &mode))
        return fail_at(s, "not a mode", words[c->verb], e);
    if (!take_number(s, seen, A_UID, UINT32_MAX - 1, &uid) || !take_number(s, seen, A_GID, UINT32_MAX - 1, &gid))
        return fail_at(s, "not an owner", words[c->verb], e);
    if (!take_number(s, seen, A_RDEV, UINT32_MAX, &c->rdev))
        return fail_at(s, "not a device", words[c->verb], e);
    c->mode = (uint32_t)mode;
    c->uid = (uint32_t)uid;
    c->gid = (uint32_t)gid;
    return 0;
}

static int take_ranges(const struct send_stream *s, uint32_t seen, struct send_command *c, struct error *e)
{
    bool is_good = take_number(s, seen, A_FILE_OFFSET, INT64_MAX, &c->offset) &&
                   take_number(s, seen, A_CLONE_OFFSET, INT64_MAX, &c->other_offset) &&
                   take_number(s, seen, seen & BIT(CLONE_LEN) ? A_CLONE_LEN : A_SIZE, INT64_MAX, &c->length) &&
                   c->length + c->n <= INT64_MAX - c->offset && c->length <= INT64_MAX - c->other_offset;
    if (!is_good)
        return fail_at(s, "a range that no file can have", words[c->verb], e);
    take_number(s, seen, seen & BIT(FILEATTR) ? A_FILEATTR : A_FALLOCATE_MODE, UINT64_MAX, &c->flags);
    return 0;
}

static bool take_time(const struct send_stream *s, uint32_t seen, enum attribute a, struct timespec *ret)
{
    if (!(seen & 1U << a))
        return true;
    *ret = (struct timespec){ .tv_sec = (time_t)read_64(s->values[a].data), .tv_nsec = read_32(s->values[a].data + 8) };
    return ret->tv_nsec < 1000000000;
}

static void take_id(const struct send_stream *s, uint32_t seen, enum attribute uuid, enum attribute transaction, struct send_id *ret)
{
    if (!(seen & 1U << uuid))
        return;
    memcpy(ret->uuid, s->values[uuid].data, sizeof ret->uuid);
    ret->transaction = read_64(s->values[transaction].data);
}

static int take_command(struct send_stream *s, enum send_verb verb, const uint8_t *at, size_t n, struct error *e)
{
    struct send_command c = { .verb = verb };
    uint32_t seen = 0;
    int rc = cut(s, verb, at, n, &seen, e);
    if (rc == 0)
        rc = take_texts(s, seen, &c, e);
    if (rc == 0)
        rc = take_small_numbers(s, seen, &c, e);
    if (rc < 0)
        return rc;
    enum attribute data = seen & BIT(DATA) ? A_DATA : A_XATTR_DATA;
    if (seen & 1U << data) {
        c.data = s->values[data].data;
        c.n = s->values[data].n;
    }
    take_id(s, seen, A_UUID, A_CTRANSID, &c.self);
    take_id(s, seen, A_CLONE_UUID, A_CLONE_CTRANSID, &c.from);
    if (!take_time(s, seen, A_ATIME, &c.atime) || !take_time(s, seen, A_MTIME, &c.mtime))
        return fail_at(s, "not a time", words[verb], e);
    rc = take_ranges(s, seen, &c, e);
    return rc < 0 ? rc : s->on_command(s->arg, &c, e);
}

// ---- feeding -----------------------------------------------------------------------------------------------------------------

static int take_header(struct send_stream *s, const uint8_t *at, struct error *e)
{
    if (memcmp(at, MAGIC, sizeof MAGIC) != 0)
        return fail_at(s, "not a send stream of btrfs", NULL, e);
    uint32_t version = read_32(at + sizeof MAGIC);
    if (version < 1 || version > SEND_VERSION_MAX)
        return fail(e, E_UNSUPPORTED, "the send stream is of protocol %" PRIu32 ", this version of Flocker knows up to %d: update it", version,
            SEND_VERSION_MAX);
    s->version = version;
    return 0;
}

static uint32_t checksum(const uint8_t *at, size_t n)
{
    static const uint8_t zeros[4];
    uint32_t crc = crc32c(0, at, 6);
    crc = crc32c(crc, zeros, sizeof zeros); // the checksum's own place
    return crc32c(crc, at + COMMAND_HEADER, n - COMMAND_HEADER);
}

// How many bytes the header or command at `at`, of which n are there, has; 0 if that can't be said yet.
static int size_of_next(const struct send_stream *s, const uint8_t *at, size_t n, size_t *ret, struct error *e)
{
    *ret = s->version ? 0 : SEND_HEADER_BYTES;
    if (!s->version || n < COMMAND_HEADER)
        return 0;
    uint32_t length = read_32(at);
    unsigned verb = read_16(at + 4);
    if (verb >= SEND_VERB_END || !words[verb] || (s->version < 2 && verb > SEND_UPDATE_EXTENT))
        return fail_at(s, "an unknown command", NULL, e);
    if (length > SEND_COMMAND_BYTES_MAX)
        return fail_at(s, "a command that is too long", words[verb], e);
    *ret = COMMAND_HEADER + length;
    return 0;
}

static int take_next(struct send_stream *s, const uint8_t *at, size_t n, struct error *e)
{
    if (!s->version)
        return take_header(s, at, e);
    enum send_verb verb = read_16(at + 4);
    if (checksum(at, n) != read_32(at + 6))
        return fail_at(s, "the checksum is wrong", words[verb], e);
    s->has_ended = verb == SEND_END;
    return take_command(s, verb, at + COMMAND_HEADER, n - COMMAND_HEADER, e);
}

static void keep(struct send_stream *s, const uint8_t *at, size_t n)
{
    if (s->n + n > s->room) {
        s->room = s->n + n < SEND_COMMAND_BYTES_MAX / 4 ? SEND_COMMAND_BYTES_MAX / 4 : SEND_COMMAND_BYTES_MAX + COMMAND_HEADER;
        s->pending = xrealloc(s->pending, s->room, 1);
    }
    memcpy(s->pending + s->n, at, n);
    s->n += n;
}

// Adds to the unfinished command, as much as its size is known, and takes it if it is whole. *ret: bytes used.
static int feed_pending(struct send_stream *s, const uint8_t *at, size_t n, size_t *ret, struct error *e)
{
    size_t size, used = 0;
    int rc = size_of_next(s, s->pending, s->n, &size, e);
    while (rc == 0 && used < n && s->n < (size ? size : COMMAND_HEADER)) {
        size_t more = (size ? size : COMMAND_HEADER) - s->n;
        if (more > n - used)
            more = n - used;
        keep(s, at + used, more);
        used += more;
        rc = size_of_next(s, s->pending, s->n, &size, e);
    }
    *ret = used;
    if (rc < 0 || size == 0 || s->n < size)
        return rc;
    rc = take_next(s, s->pending, size, e);
    s->position += size;
    s->n = 0;
    return rc;
}

int send_stream_feed(struct send_stream *s, const void *data, size_t n, struct error *e)
{
    const uint8_t *at = data;
    while (n > 0) {
        size_t used = 0;
        int rc = s->has_ended ? fail_at(s, "something follows its end", NULL, e) : 0;
        if (rc == 0 && s->n == 0)
            rc = size_of_next(s, at, n, &used, e);
        if (rc < 0)
            return rc;
        if (s->n == 0 && used > 0 && used <= n) {
            rc = take_next(s, at, used, e); // where it lies
            s->position += used;
        } else {
            rc = feed_pending(s, at, n, &used, e);
        }
        if (rc < 0)
            return rc;
        at += used;
        n -= used;
    }
    return 0;
}

int send_stream_restore(struct send_stream *s, uint32_t version, bool has_ended, const uint8_t *pending, size_t n, struct error *e)
{
    ASSERT(!s->version && s->n == 0);
    if (version > SEND_VERSION_MAX || (has_ended && (n > 0 || version == 0)))
        return fail(e, E_CORRUPT, "a send stream's state is damaged");
    s->version = version;
    int rc = send_stream_feed(s, pending, n, e);
    s->has_ended = has_ended;
    return rc;
}
