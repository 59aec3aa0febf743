#include "client/config.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/size.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <yaml.h>

// ---- values: each reads a text, or sets nothing and returns false

static bool take_text(const char *text, char **ret)
{
    free(*ret);
    *ret = xstrdup(text);
    return true;
}

static bool read_number(const char *text, unsigned long min, unsigned long max, unsigned long *ret)
{
    unsigned long n = 0;
    if (!*text || strlen(text) > 9 || strspn(text, "0123456789") != strlen(text))
        return false;
    for (; *text; text++)
        n = n * 10 + (unsigned long)(*text - '0');
    *ret = n;
    return n >= min && n <= max;
}

static bool read_version(const char *text, void *place)
{
    (void)place;
    return strcmp(text, "1") == 0;
}

static bool read_host(const char *text, void *place)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:_";
    size_t n = strlen(text);
    return n > 0 && n <= 253 && strspn(text, allowed) == n && take_text(text, place);
}

static bool read_port(const char *text, void *place)
{
    unsigned long n;
    if (!read_number(text, 1, UINT16_MAX, &n))
        return false;
    *(uint16_t *)place = (uint16_t)n;
    return true;
}

static bool read_backend(const char *text, void *place)
{
    return (strcmp(text, "btrfs") == 0 || strcmp(text, "memory") == 0) && take_text(text, place);
}

static bool read_path(const char *text, void *place)
{
    return text[0] == '/' && strlen(text) < PATH_MAX && take_text(text, place);
}

static bool read_size(const char *text, void *place)
{
    struct error ignored = ERROR_INIT;
    uint64_t size;
    if (size_parse(text, &size, &ignored) < 0 || size < VOLUME_SIZE_MIN)
        return false;
    *(uint64_t *)place = size;
    return true;
}

static bool read_bool(const char *text, void *place)
{
    static const char *const words[2][3] = { { "false", "no", "off" }, { "true", "yes", "on" } };
    for (int value = 0; value < 2; value++)
        for (size_t i = 0; i < ARRAY_SIZE(words[value]); i++)
            if (strcasecmp(text, words[value][i]) == 0) {
                *(bool *)place = value;
                return true;
            }
    return false;
}

static bool read_quota(const char *text, void *place)
{
    *(bool *)place = strcmp(text, "qgroups") == 0;
    return *(bool *)place || strcmp(text, "auto") == 0;
}

static bool read_listen(const char *text, void *place)
{
    char address[64];
    struct in6_addr any;
    unsigned long port;
    const char *colon = strrchr(text, ':');
    size_t n = colon ? (size_t)(colon - text) : 0;
    bool v6 = text[0] == '[';
    if (n < 2 || n >= sizeof address || (v6 && text[n - 1] != ']') || !read_number(colon + 1, 1, UINT16_MAX, &port))
        return false;
    memcpy(address, text + v6, n - 2 * (size_t)v6);
    address[n - 2 * (size_t)v6] = '\0';
    return inet_pton(v6 ? AF_INET6 : AF_INET, address, &any) == 1 && take_text(text, place);
}

// ---- the keys

static const struct key {
    const char *section; // NULL: at the top
    const char *name;
    bool (*read)(const char *text, void *place); // NULL: a section
    size_t offset;
    const char *allowed; // NULL: whatever it holds is ignored
} keys[] = {
#define AT(member) offsetof(struct config, member)
    { NULL, "version", read_version, 0, "1" },
    { NULL, "control-service", NULL, 0, "hostname and port" },
    { "control-service", "hostname", read_host, AT(control_host), "a host name or an address" },
    { "control-service", "port", read_port, AT(control_port), "a port from 1 to 65535" },
    { NULL, "dataset", NULL, 0, "backend, pool, pool_size, format, quota and mount_root" },
    { "dataset", "backend", read_backend, AT(backend), "btrfs or memory" },
    { "dataset", "pool", read_path, AT(pool), "an absolute path" },
    { "dataset", "pool_size", read_size, AT(pool_size), "a size of at least 64M, for example 100G" },
    { "dataset", "format", read_bool, AT(format), "true or false" },
    { "dataset", "quota", read_quota, AT(qgroups), "auto or qgroups" },
    { "dataset", "mount_root", read_path, AT(mount_root), "an absolute path" },
    { NULL, "docker", NULL, 0, "listen" },
    { "docker", "listen", read_listen, AT(docker_listen), "ADDRESS:PORT, the address in numbers" },
    { NULL, "logging", NULL, 0, NULL },
#undef AT
};

#define TOP_ALLOWED "version, control-service, dataset, docker and logging"
_Static_assert(ARRAY_SIZE(keys) <= 32, "a bit of `seen` for each key");

// Backends of the original, and of those who wrote some for it.
static const char *const foreign[] = { "aws", "openstack", "gce", "loopback", "zfs", "rackspace", "emc_scaleio_driver", "netapp", "powervault" };

// ---- the document

struct reader {
    yaml_parser_t parser;
    const char *file;
    struct config config;
    unsigned seen; // keys, by their place in the table
    struct error unknown; // the first key that isn't in the table: told if nothing worse is found
};

// Bytes that could drive a terminal are not repeated.
static const char *shown(const char *text, char ret[64])
{
    size_t i = 0;
    for (; i < 60 && text[i]; i++)
        ret[i] = text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '?';
    ret[i] = '\0';
    return ret;
}

static int bad(const struct reader *r, const yaml_event_t *event, const char *what, struct error *e)
{
    return fail(e, E_INVALID, "%s line %zu: %s", r->file, event->start_mark.line + 1, what);
}

static int not_yaml(const struct reader *r, struct error *e)
{
    const yaml_parser_t *p = &r->parser;
    size_t line = p->problem_mark.line ? p->problem_mark.line : p->context_mark.line;
    return fail(e, E_INVALID, "%s line %zu: not YAML: %s", r->file, line + 1, p->problem ? p->problem : "it can't be read");
}

static bool has_decoration(const yaml_event_t *event)
{
    switch ((int)event->type) {
    case YAML_ALIAS_EVENT:
        return true;
    case YAML_SCALAR_EVENT:
        return event->data.scalar.anchor || event->data.scalar.tag;
    case YAML_SEQUENCE_START_EVENT:
        return event->data.sequence_start.anchor || event->data.sequence_start.tag;
    case YAML_MAPPING_START_EVENT:
        return event->data.mapping_start.anchor || event->data.mapping_start.tag;
    default:
        return false;
    }
}

// The next event; the caller deletes it, also after an error.
static int next(struct reader *r, yaml_event_t *ret, struct error *e)
{
    memset(ret, 0, sizeof *ret);
    if (!yaml_parser_parse(&r->parser, ret))
        return not_yaml(r, e);
    if (has_decoration(ret))
        return bad(r, ret, "anchors (&), aliases (*) and tags (!) are not allowed", e);
    if (ret->type == YAML_SCALAR_EVENT && strlen((const char *)ret->data.scalar.value) != ret->data.scalar.length)
        return bad(r, ret, "a text holds a NUL character", e);
    return 0;
}

// Reads on to the end of the value that began with `event`, whatever it holds. `depth`: mappings and sequences around it.
static int skip(struct reader *r, const yaml_event_t *event, int depth, struct error *e)
{
    int outside = depth;
    yaml_event_type_t type = event->type;
    for (;;) {
        depth += type == YAML_MAPPING_START_EVENT || type == YAML_SEQUENCE_START_EVENT;
        depth -= type == YAML_MAPPING_END_EVENT || type == YAML_SEQUENCE_END_EVENT;
        if (depth <= outside)
            return 0;
        yaml_event_t inner;
        int rc = next(r, &inner, e);
        if (rc == 0 && depth > CONFIG_DEPTH_MAX)
            rc = fail(e, E_INVALID, "%s line %zu: nested deeper than %d levels", r->file, inner.start_mark.line + 1, CONFIG_DEPTH_MAX);
        type = inner.type;
        yaml_event_delete(&inner);
        if (rc < 0)
            return rc;
    }
}

static const struct key *find_key(const char *section, const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        if (strcmp(keys[i].name, name) == 0 && (section == keys[i].section || (section && keys[i].section && strcmp(section, keys[i].section) == 0)))
            return &keys[i];
    return NULL;
}

static void note_unknown(struct reader *r, const yaml_event_t *event, const struct key *section)
{
    char text[64];
    if (r->unknown.code)
        return;
    fail(&r->unknown, E_INVALID, "%s line %zu: unknown key '%s%s%s': there are %s", r->file, event->start_mark.line + 1,
         section ? section->name : "", section ? "." : "", shown((const char *)event->data.scalar.value, text),
         section ? section->allowed : TOP_ALLOWED);
}

static int bad_value(const struct reader *r, const yaml_event_t *event, const struct key *key, const char *text, struct error *e)
{
    char visible[64];
    const char *section = key->section ? key->section : "", *dot = key->section ? "." : "";
    if (text && key->read == read_backend)
        for (size_t i = 0; i < ARRAY_SIZE(foreign); i++)
            if (strcmp(foreign[i], text) == 0)
                return fail(e, E_INVALID, "%s line %zu: dataset.backend: '%s' was a backend of the original Flocker and is not in this one: "
                                          "there are %s, which use the disks of the node", r->file, event->start_mark.line + 1, text, key->allowed);
    if (!text)
        return fail(e, E_INVALID, "%s line %zu: %s%s%s must be %s", r->file, event->start_mark.line + 1, section, dot, key->name, key->allowed);
    return fail(e, E_INVALID, "%s line %zu: %s%s%s: '%s' is not right, it must be %s", r->file, event->start_mark.line + 1, section, dot, key->name,
                shown(text, visible), key->allowed);
}

static int read_mapping(struct reader *r, const struct key *section, struct error *e);

static int read_value(struct reader *r, const yaml_event_t *event, const struct key *key, struct error *e)
{
    if (!key->allowed) {
        snprintf(r->config.note, sizeof r->config.note, "%.120s: \"%s\" is ignored: the log goes to standard error", r->file, key->name);
        return skip(r, event, 1, e);
    }
    if (!key->read && event->type == YAML_SCALAR_EVENT && event->data.scalar.plain_implicit && event->data.scalar.length == 0)
        return 0; // all that was in it is commented out
    if (!key->read)
        return event->type == YAML_MAPPING_START_EVENT ? read_mapping(r, key, e)
                                                       : fail(e, E_INVALID, "%s line %zu: %s must be a mapping with %s", r->file,
                                                              event->start_mark.line + 1, key->name, key->allowed);
    if (event->type != YAML_SCALAR_EVENT)
        return bad_value(r, event, key, NULL, e);
    const char *text = (const char *)event->data.scalar.value;
    return key->read(text, (char *)&r->config + key->offset) ? 0 : bad_value(r, event, key, text, e);
}

static int read_pair(struct reader *r, const yaml_event_t *name, const struct key *section, struct error *e)
{
    yaml_event_t value;
    if (name->type != YAML_SCALAR_EVENT)
        return bad(r, name, "a key is not a text", e);
    const struct key *key = find_key(section ? section->name : NULL, (const char *)name->data.scalar.value);
    if (!key)
        note_unknown(r, name, section);
    else if (r->seen & 1U << (key - keys))
        return fail(e, E_INVALID, "%s line %zu: %s is there twice", r->file, name->start_mark.line + 1, key->name);
    else
        r->seen |= 1U << (key - keys);
    int rc = next(r, &value, e);
    if (rc == 0)
        rc = key ? read_value(r, &value, key, e) : skip(r, &value, section ? 2 : 1, e);
    yaml_event_delete(&value);
    return rc;
}

// Pairs up to the end of a mapping whose start was read. Sections hold no sections: this calls itself once at most.
static int read_mapping(struct reader *r, const struct key *section, struct error *e)
{
    for (;;) {
        yaml_event_t event;
        int rc = next(r, &event, e);
        bool end = rc == 0 && event.type == YAML_MAPPING_END_EVENT;
        if (rc == 0 && !end)
            rc = read_pair(r, &event, section, e);
        yaml_event_delete(&event);
        if (rc < 0 || end)
            return rc;
    }
}

// One document that is a mapping, and nothing behind it.
static int read_stream(struct reader *r, struct error *e)
{
    static const yaml_event_type_t expected[] = { YAML_STREAM_START_EVENT, YAML_DOCUMENT_START_EVENT, YAML_MAPPING_START_EVENT,
                                                  YAML_DOCUMENT_END_EVENT, YAML_STREAM_END_EVENT };
    for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
        yaml_event_t event;
        int rc = next(r, &event, e);
        if (rc == 0 && event.type != expected[i])
            rc = bad(r, &event, i < 3 ? "the file must hold keys, first \"version: 1\"" : "a second document in the file", e);
        yaml_event_delete(&event);
        if (rc == 0 && expected[i] == YAML_MAPPING_START_EVENT)
            rc = read_mapping(r, NULL, e);
        if (rc < 0)
            return rc;
    }
    return 0;
}

void config_done(struct config *c)
{
    free(c->control_host);
    free(c->backend);
    free(c->pool);
    free(c->mount_root);
    free(c->docker_listen);
    *c = (struct config){ .control_host = NULL };
}

int config_parse(const char *file, const char *text, size_t n, struct config *ret, struct error *e)
{
    struct reader r = { .file = file, .config = { .control_port = 4524 } };
    if (n > CONFIG_BYTES_MAX)
        return fail(e, E_TOO_LARGE, "%s is larger than %u bytes", file, CONFIG_BYTES_MAX);
    r.config.control_host = xstrdup("127.0.0.1");
    r.config.backend = xstrdup("btrfs");
    if (!yaml_parser_initialize(&r.parser))
        return fail(e, E_IO, "%s: the YAML reader can't start", file);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, n);
    int rc = read_stream(&r, e);
    yaml_parser_delete(&r.parser);
    if (rc == 0 && r.unknown.code) {
        *e = r.unknown;
        rc = -(int)e->code;
    }
    if (rc == 0 && !(r.seen & 1U << (find_key(NULL, "version") - keys)))
        rc = fail(e, E_INVALID, "%s: version is missing: its first line must be \"version: 1\"", file);
    if (rc < 0)
        config_done(&r.config);
    else
        *ret = r.config;
    return rc;
}

int config_read(const char *path, struct config *ret, struct error *e)
{
    struct stat st;
    AUTO(close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) < 0)
        return fail_os(e, errno, "read %s", path);
    if (!S_ISREG(st.st_mode))
        return fail(e, E_INVALID, "%s is not a file", path);
    AUTO(free) char *text = xcalloc(CONFIG_BYTES_MAX + 1, 1);
    size_t n = 0;
    for (ssize_t got = 1; got > 0 && n <= CONFIG_BYTES_MAX; n += (size_t)got) {
        got = read(fd, text + n, CONFIG_BYTES_MAX + 1 - n);
        if (got < 0)
            return fail_os(e, errno, "read %s", path);
    }
    return config_parse(path, text, n, ret, e);
}
