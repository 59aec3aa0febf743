// Send streams made by hand, right or wrong.
#ifndef FLOCKER_TESTS_SEND_KIT_H
#define FLOCKER_TESTS_SEND_KIT_H

#include "base/crc32c.h"
#include "base/mem.h"

#include <stdint.h>
#include <string.h>

struct stream {
    uint8_t *data;
    size_t n;
    size_t command; // where the command starts that is being made
};

static inline void stream_done(struct stream *s)
{
    free(s->data);
    *s = (struct stream){ NULL, 0, 0 };
}
static inline void auto_stream_done(struct stream *s)
{
    stream_done(s);
}

static inline void stream_add(struct stream *s, const void *data, size_t n)
{
    s->data = xrealloc(s->data, s->n + n, 1);
    if (n)
        memcpy(s->data + s->n, data, n);
    s->n += n;
}

static inline void stream_number(struct stream *s, uint64_t value, size_t n) // little-endian, as this machine is
{
    stream_add(s, &value, n);
}

static inline void stream_header(struct stream *s, uint32_t version)
{
    stream_add(s, "btrfs-stream", 13);
    stream_number(s, version, 4);
}

static inline void stream_begin(struct stream *s, unsigned verb)
{
    s->command = s->n;
    stream_number(s, 0, 4);
    stream_number(s, verb, 2);
    stream_number(s, 0, 4);
}

static inline void stream_attribute(struct stream *s, unsigned number, const void *data, size_t n)
{
    stream_number(s, number, 2);
    stream_number(s, n, 2);
    stream_add(s, data, n);
}
static inline void stream_text(struct stream *s, unsigned number, const char *text)
{
    stream_attribute(s, number, text, strlen(text));
}
static inline void stream_64(struct stream *s, unsigned number, uint64_t value)
{
    stream_attribute(s, number, &value, sizeof value);
}

static inline void stream_end_command(struct stream *s)
{
    uint32_t n = (uint32_t)(s->n - s->command - 10), crc;
    memcpy(s->data + s->command, &n, sizeof n);
    crc = crc32c(0, s->data + s->command, s->n - s->command);
    memcpy(s->data + s->command + 6, &crc, sizeof crc);
}

// Numbers of attributes that tests use; see fs/btrfs/send.h.
enum { S_UUID = 1, S_TRANSACTION, S_INO, S_SIZE, S_MODE, S_UID, S_GID, S_RDEV, S_XATTR_NAME = 13, S_XATTR_DATA, S_PATH, S_PATH_TO, S_PATH_LINK,
       S_OFFSET, S_DATA, S_FROM_UUID, S_FROM_TRANSACTION, S_FROM_PATH, S_FROM_OFFSET, S_FROM_LENGTH };

static inline void stream_subvolume(struct stream *s, uint8_t id)
{
    uint8_t uuid[16] = { id };
    stream_begin(s, 1);
    stream_text(s, S_PATH, "out.1");
    stream_attribute(s, S_UUID, uuid, sizeof uuid);
    stream_64(s, S_TRANSACTION, 7);
    stream_end_command(s);
}

// A command with a path, and, unless it is NULL, another one.
static inline void stream_paths(struct stream *s, unsigned verb, const char *path, unsigned other_number, const char *other)
{
    stream_begin(s, verb);
    stream_text(s, S_PATH, path);
    if (other)
        stream_text(s, other_number, other);
    stream_end_command(s);
}

static inline void stream_write(struct stream *s, const char *path, uint64_t offset, const char *text)
{
    stream_begin(s, 15);
    stream_text(s, S_PATH, path);
    stream_64(s, S_OFFSET, offset);
    stream_text(s, S_DATA, text);
    stream_end_command(s);
}

static inline void stream_end(struct stream *s)
{
    stream_begin(s, 21);
    stream_end_command(s);
}

#endif
