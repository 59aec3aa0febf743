// A parser of its own rather than libmount's: that one goes on to interpret (swaps, utab, canonical paths), allocates a dozen
// strings per line, and a scan over all namespaces of a host with many containers reads hundreds of thousands of lines.
#include "sys/mountinfo.h"

#include "base/mem.h"
#include "sys/atomic_file.h"

#include <limits.h>
#include <stdint.h>
#include <string.h>

#define TEXT_MAX (256U << 20)

void mountinfo_done(struct mountinfo *m)
{
    free(m->entries);
    free(m->text);
    *m = (struct mountinfo){ 0 };
}

// The next field of a line, ended by a NUL in place of the space; NULL at the end of the line.
static char *next_field(char **line)
{
    char *start = *line;
    if (!start || *start == '\0')
        return NULL;
    char *space = strchr(start, ' ');
    if (space)
        *space = '\0';
    *line = space ? space + 1 : NULL;
    return start;
}

static bool read_number(const char **p, unsigned long max, unsigned long *ret)
{
    unsigned long n = 0;
    const char *s = *p;
    if (*s < '0' || *s > '9')
        return false;
    for (; *s >= '0' && *s <= '9'; s++) {
        n = n * 10 + (unsigned long)(*s - '0');
        if (n > max)
            return false;
    }
    *p = s;
    *ret = n;
    return true;
}

static bool whole_number(const char *text, int *ret)
{
    unsigned long n;
    if (!text || !read_number(&text, INT_MAX, &n) || *text != '\0')
        return false;
    *ret = (int)n;
    return true;
}

static bool device_number(const char *text, unsigned *ret_major, unsigned *ret_minor)
{
    unsigned long major, minor;
    if (!text || !read_number(&text, UINT_MAX, &major) || *text++ != ':' || !read_number(&text, UINT_MAX, &minor) || *text != '\0')
        return false;
    *ret_major = (unsigned)major;
    *ret_minor = (unsigned)minor;
    return true;
}

static bool is_octal(char c)
{
    return c >= '0' && c <= '7';
}

// The kernel writes space, tab, newline, backslash and # as \ooo.
static char *unescape(char *text)
{
    char *to = text;
    if (!text)
        return NULL;
    for (const char *from = text; *from;) {
        if (from[0] == '\\' && is_octal(from[1]) && is_octal(from[2]) && is_octal(from[3])) {
            *to++ = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
            from += 4;
        } else {
            *to++ = *from++;
        }
    }
    *to = '\0';
    return text;
}

// "36 35 98:0 /root /mnt/point rw,noatime shared:1 master:2 - ext3 /dev/root rw,errors=continue"
static bool parse_line(char *line, struct mountinfo_entry *ret)
{
    struct mountinfo_entry m = { 0 };
    if (!whole_number(next_field(&line), &m.id) || !whole_number(next_field(&line), &m.parent) ||
        !device_number(next_field(&line), &m.major, &m.minor))
        return false;
    m.root = unescape(next_field(&line));
    m.mount_point = unescape(next_field(&line));
    const char *field = next_field(&line); // options of the mount
    if (!m.root || !m.mount_point || !field)
        return false;
    while ((field = next_field(&line)) && strcmp(field, "-") != 0) {
        if (strncmp(field, "shared:", 7) == 0 && !whole_number(field + 7, &m.shared))
            return false;
        if (strncmp(field, "master:", 7) == 0 && !whole_number(field + 7, &m.master))
            return false;
    }
    if (!field)
        return false;
    m.type = unescape(next_field(&line));
    m.source = unescape(next_field(&line));
    if (!m.type || !m.source)
        return false;
    *ret = m;
    return true;
}

int mountinfo_parse(char *text, struct mountinfo *ret, struct error *e)
{
    AUTO(mountinfo_done) struct mountinfo m = { .text = text };
    size_t room = 0;
    for (char *line = text, *end; *line; line = end) {
        end = line + strcspn(line, "\n");
        if (*end)
            *end++ = '\0';
        if (m.n == room) {
            room = room ? room * 2 : 64;
            m.entries = xrealloc(m.entries, room, sizeof m.entries[0]);
        }
        if (!parse_line(line, &m.entries[m.n]))
            return fail(e, E_CORRUPT, "line %zu of a mount table isn't understood", m.n + 1);
        m.n++;
    }
    *ret = TAKE(m, (struct mountinfo){ 0 });
    return 0;
}

int mountinfo_read(const char *path, struct mountinfo *ret, struct error *e)
{
    char *text = NULL;
    size_t n;
    int rc = atomic_file_read_pseudo(path, TEXT_MAX, &text, &n, e);
    if (rc < 0)
        return rc;
    rc = mountinfo_parse(text, ret, e);
    return rc < 0 ? fail_ctx(e, rc, "%s", path) : 0;
}

int mountinfo_read_self(struct mountinfo *ret, struct error *e)
{
    return mountinfo_read("/proc/self/mountinfo", ret, e);
}

const struct mountinfo_entry *mountinfo_at(const struct mountinfo *m, const char *mount_point)
{
    // Of mounts stacked at one path the topmost is the one that has no other on it, whatever their order.
    const struct mountinfo_entry *top = NULL;
    for (size_t i = 0; i < m->n; i++) {
        const struct mountinfo_entry *entry = &m->entries[i];
        if (strcmp(entry->mount_point, mount_point) == 0 && (!top || top->parent != entry->id))
            top = entry;
    }
    return top;
}

const struct mountinfo_entry *mountinfo_by_id(const struct mountinfo *m, int id)
{
    for (size_t i = 0; i < m->n; i++)
        if (m->entries[i].id == id)
            return &m->entries[i];
    return NULL;
}

bool mountinfo_is_below(const char *path, const char *top)
{
    size_t n = strlen(top);
    if (strcmp(top, "/") == 0)
        return path[0] == '/';
    return strncmp(path, top, n) == 0 && (path[n] == '/' || path[n] == '\0');
}
