#include "cli/yaml.h"

#include "base/limits.h"
#include "base/mem.h"
#include "model/json.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <yaml.h>

struct reader {
    const char *name;
    yaml_parser_t parser;
    yaml_event_t event;
    bool has_event;
};

DEFINE_AUTO(json_t *, json_decref)

static int bad(const struct reader *r, struct error *e, const char *what)
{
    return fail(e, E_INVALID, "%.200s, line %zu: %s", r->name, r->event.start_mark.line + 1, what);
}

static int next(struct reader *r, struct error *e)
{
    if (r->has_event)
        yaml_event_delete(&r->event);
    r->has_event = false;
    if (!yaml_parser_parse(&r->parser, &r->event))
        return fail(e, E_INVALID, "%.200s, line %zu: %s", r->name, r->parser.problem_mark.line + 1,
                    r->parser.problem ? r->parser.problem : "this is not YAML");
    r->has_event = true;
    return 0;
}

static json_t *plain_scalar(const char *text)
{
    static const struct {
        const char *word;
        enum { NOTHING, YES, NO } value;
    } words[] = { { "", NOTHING }, { "~", NOTHING }, { "null", NOTHING }, { "true", YES }, { "yes", YES }, { "false", NO }, { "no", NO } };
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        if (strcmp(words[i].word, text) == 0)
            return words[i].value == NOTHING ? json_null() : json_boolean(words[i].value == YES);
    const char *digits = text + (*text == '-');
    const size_t n = strlen(digits);
    if (n > 0 && n < 19 && strspn(digits, "0123456789") == n)
        return json_integer(strtoll(text, NULL, 10));
    return json_text(text);
}

static int read_scalar(const struct reader *r, json_t **ret, struct error *e)
{
    const char *text = (const char *)r->event.data.scalar.value;
    if (r->event.data.scalar.anchor || r->event.data.scalar.tag)
        return bad(r, e, "anchors and tags are not taken here");
    if (strlen(text) != r->event.data.scalar.length)
        return bad(r, e, "a text holds a NUL character");
    *ret = r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE ? plain_scalar(text) : json_text(text);
    return 0;
}

static int read_value(struct reader *r, unsigned depth, json_t **ret, struct error *e);

static int read_list(struct reader *r, unsigned depth, json_t **ret, struct error *e)
{
    AUTO(json_decref) json_t *list = json_array();
    for (;;) {
        json_t *item = NULL;
        int rc = next(r, e);
        if (rc == 0 && r->event.type == YAML_SEQUENCE_END_EVENT)
            break;
        if (rc < 0 || (rc = read_value(r, depth, &item, e)) < 0)
            return rc;
        json_array_append_new(list, item);
    }
    *ret = TAKE(list, NULL);
    return 0;
}

static int read_mapping(struct reader *r, unsigned depth, json_t **ret, struct error *e)
{
    AUTO(json_decref) json_t *object = json_object();
    for (;;) {
        json_t *value = NULL;
        int rc = next(r, e);
        if (rc < 0)
            return rc;
        if (r->event.type == YAML_MAPPING_END_EVENT)
            break;
        if (r->event.type != YAML_SCALAR_EVENT)
            return bad(r, e, "the name of a member is to be a text");
        AUTO(free) char *key = xstrdup((const char *)r->event.data.scalar.value);
        if (json_object_get(object, key))
            return bad(r, e, "a member of that name is there already");
        if ((rc = next(r, e)) < 0 || (rc = read_value(r, depth, &value, e)) < 0)
            return rc;
        if (json_object_set_new(object, key, value) < 0)
            return bad(r, e, "the name of a member is not UTF-8");
    }
    *ret = TAKE(object, NULL);
    return 0;
}

// The value that begins with the present event.
static int read_value(struct reader *r, unsigned depth, json_t **ret, struct error *e)
{
    if (depth == 0)
        return bad(r, e, "it is nested too deep");
    switch (r->event.type) {
    case YAML_SCALAR_EVENT:
        return read_scalar(r, ret, e);
    case YAML_SEQUENCE_START_EVENT:
        if (!r->event.data.sequence_start.anchor && !r->event.data.sequence_start.tag)
            return read_list(r, depth - 1, ret, e);
        break;
    case YAML_MAPPING_START_EVENT:
        if (!r->event.data.mapping_start.anchor && !r->event.data.mapping_start.tag)
            return read_mapping(r, depth - 1, ret, e);
        break;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_START_EVENT:
    case YAML_DOCUMENT_END_EVENT:
    case YAML_ALIAS_EVENT:
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        break;
    }
    return bad(r, e, "anchors, aliases and tags are not taken here");
}

static int read_document(struct reader *r, json_t **ret, struct error *e)
{
    AUTO(json_decref) json_t *value = NULL;
    int rc = next(r, e); // the stream begins
    if (rc < 0 || (rc = next(r, e)) < 0)
        return rc;
    if (r->event.type != YAML_DOCUMENT_START_EVENT)
        return fail(e, E_INVALID, "%.200s is empty", r->name);
    if ((rc = next(r, e)) < 0 || (rc = read_value(r, JSON_DEPTH_MAX, &value, e)) < 0)
        return rc;
    if ((rc = next(r, e)) < 0 || (rc = next(r, e)) < 0)
        return rc;
    if (r->event.type != YAML_STREAM_END_EVENT)
        return bad(r, e, "a second document begins");
    *ret = TAKE(value, NULL);
    return 0;
}

int yaml_parse(const char *name, const char *text, size_t n, json_t **ret, struct error *e)
{
    struct reader r = { .name = name };
    if (!yaml_parser_initialize(&r.parser))
        return fail(e, E_IO, "the YAML library does not start");
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, n);
    int rc = read_document(&r, ret, e);
    if (r.has_event)
        yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    return rc;
}

int yaml_read_file(const char *path, json_t **ret, struct error *e)
{
    AUTO(fclose) FILE *f = fopen(path, "re");
    if (!f)
        return fail_os(e, errno, "open %.200s", path);
    AUTO(free) char *text = xcalloc(HTTP_BODY_BYTES_MAX + 1, 1);
    size_t n = fread(text, 1, HTTP_BODY_BYTES_MAX + 1, f);
    if (ferror(f))
        return fail_os(e, errno, "read %.200s", path);
    if (n > HTTP_BODY_BYTES_MAX)
        return fail(e, E_TOO_LARGE, "%.200s is larger than %u bytes, the limit", path, HTTP_BODY_BYTES_MAX);
    return yaml_parse(path, text, n, ret, e);
}
