// Going on where a connection broke: what was counted decides, and both sides come to the same.
#include "test.h"

#include "base/mem.h"
#include "plan/resume.h"

#include <string.h>

static const struct uuid one = { { 1 } }, two = { { 2 } };

// Claim and answer go through text, as on the wire; the agent must judge as control did.
static enum resume both(const struct resume_count *control, const struct resume_count *agent)
{
    struct resume_count next = { control->instance, control->connection + 1, 0, 0 }, heard;
    json_t *claim = resume_claim(agent), *welcome = json_object();
    AUTO(free) char *text = json_dumps(claim, 0);
    json_t *read = json_loads(text, 0, NULL);
    enum resume verdict = resume_judge(control, read);
    resume_answer(welcome, verdict, control, &next);
    AUTO(free) char *answer = json_dumps(welcome, 0);
    json_decref(welcome);
    welcome = json_loads(answer, 0, NULL);
    assert_int_equal(resume_read_answer(welcome, agent, &heard), verdict);
    assert_true(uuid_equal(&heard.instance, &next.instance));
    assert_int_equal(heard.connection, next.connection);
    assert_int_equal(heard.wants, 0);
    assert_int_equal(heard.reports, 0);
    json_decref(claim);
    json_decref(read);
    json_decref(welcome);
    return verdict;
}

static void equal_counts_resume_and_nothing_else_does(void **state)
{
    (void)state;
    const struct resume_count control = { one, 3, 10, 20 };
    for (uint64_t connection = 2; connection <= 4; connection++)
        for (uint64_t wants = 9; wants <= 11; wants++)
            for (uint64_t reports = 19; reports <= 21; reports++)
                for (int instance = 0; instance < 2; instance++) {
                    const struct resume_count agent = { instance ? two : one, connection, wants, reports };
                    bool same = !instance && connection == 3 && wants == 10;
                    assert_int_equal(both(&control, &agent), !same ? RESUME_NOTHING : reports == 20 ? RESUME_ALL : RESUME_WANTS);
                }
}

static void a_first_connection_is_not_resumed(void **state)
{
    (void)state;
    const struct resume_count none = { one, 0, 0, 0 };
    struct resume_count next;
    assert_int_equal(both(&none, &none), RESUME_NOTHING);
    assert_int_equal(resume_judge(&none, NULL), RESUME_NOTHING);
    json_t *welcome = json_pack("{s:b, s:i}", "resume", 1, "reports", 0); // a control that makes no sense
    assert_int_equal(resume_read_answer(welcome, &none, &next), RESUME_NOTHING);
    assert_int_equal(next.connection, 0);
    json_decref(welcome);
}

static void claims_that_make_no_sense_resume_nothing(void **state)
{
    (void)state;
    const struct resume_count control = { one, 1, 0, 0 };
    static const char *const claims[] = {
        "null", "[]", "7", "{}",
        "{\"instance\":\"x\",\"connection\":1,\"wants\":0,\"reports\":0}",
        "{\"instance\":\"01000000-0000-0000-0000-000000000000\",\"connection\":1.0,\"wants\":0,\"reports\":0}",
        "{\"instance\":\"01000000-0000-0000-0000-000000000000\",\"connection\":1,\"wants\":\"0\",\"reports\":0}",
        "{\"instance\":\"01000000-0000-0000-0000-000000000000\",\"connection\":1,\"wants\":-1,\"reports\":0}",
        "{\"instance\":\"01000000-0000-0000-0000-000000000000\",\"connection\":1,\"wants\":0}",
    };
    for (size_t i = 0; i < ARRAY_SIZE(claims); i++) {
        json_t *claim = json_loads(claims[i], JSON_DECODE_ANY, NULL);
        assert_non_null(claim);
        assert_int_equal(resume_judge(&control, claim), RESUME_NOTHING);
        json_decref(claim);
    }
}

// A welcome without the members is one of a control that can't resume; with "resume" but without a count the reports are made anew.
static void welcomes_that_lack_members(void **state)
{
    (void)state;
    const struct resume_count agent = { one, 1, 0, 0 };
    struct resume_count next;
    json_t *welcome = json_object();
    assert_int_equal(resume_read_answer(welcome, &agent, &next), RESUME_NOTHING);
    assert_int_equal(next.connection, 0);
    json_object_set_new(welcome, "resume", json_true());
    assert_int_equal(resume_read_answer(welcome, &agent, &next), RESUME_WANTS);
    json_decref(welcome);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_counts_resume_and_nothing_else_does),
        cmocka_unit_test(a_first_connection_is_not_resumed),
        cmocka_unit_test(claims_that_make_no_sense_resume_nothing),
        cmocka_unit_test(welcomes_that_lack_members),
    };
    return RUN_TESTS(tests);
}
