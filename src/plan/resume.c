#include "plan/resume.h"

static bool read_id(const json_t *object, const char *member, struct uuid *ret)
{
    const char *text = json_string_value(json_object_get(object, member));
    return text && uuid_parse(text, ret);
}

static bool read_count(const json_t *object, const char *member, uint64_t *ret)
{
    const json_t *n = json_object_get(object, member);
    if (!json_is_integer(n) || json_integer_value(n) < 0)
        return false;
    *ret = (uint64_t)json_integer_value(n);
    return true;
}

json_t *resume_claim(const struct resume_count *agent)
{
    return json_pack("{s:s, s:I, s:I, s:I}", "instance", UUID_TEXT(&agent->instance), "connection", (json_int_t)agent->connection, "wants",
                     (json_int_t)agent->wants, "reports", (json_int_t)agent->reports);
}

enum resume resume_judge(const struct resume_count *control, const json_t *claim)
{
    struct resume_count said;
    if (!read_id(claim, "instance", &said.instance) || !read_count(claim, "connection", &said.connection) ||
        !read_count(claim, "wants", &said.wants) || !read_count(claim, "reports", &said.reports))
        return RESUME_NOTHING;
    if (control->connection == 0 || !uuid_equal(&said.instance, &control->instance) || said.connection != control->connection ||
        said.wants != control->wants)
        return RESUME_NOTHING;
    return said.reports == control->reports ? RESUME_ALL : RESUME_WANTS;
}

void resume_answer(json_t *welcome, enum resume verdict, const struct resume_count *last, const struct resume_count *next)
{
    json_object_set_new(welcome, "instance", json_string(UUID_TEXT(&next->instance)));
    json_object_set_new(welcome, "connection", json_integer((json_int_t)next->connection));
    if (verdict == RESUME_NOTHING)
        return;
    json_object_set_new(welcome, "resume", json_true());
    json_object_set_new(welcome, "reports", json_integer((json_int_t)last->reports));
}

enum resume resume_read_answer(const json_t *welcome, const struct resume_count *agent, struct resume_count *ret_next)
{
    uint64_t reports = 0;
    *ret_next = (struct resume_count){ .connection = 0 };
    if (!read_id(welcome, "instance", &ret_next->instance) || !read_count(welcome, "connection", &ret_next->connection))
        ret_next->connection = 0;
    if (agent->connection == 0 || !json_is_true(json_object_get(welcome, "resume")))
        return RESUME_NOTHING;
    return read_count(welcome, "reports", &reports) && reports == agent->reports ? RESUME_ALL : RESUME_WANTS;
}
