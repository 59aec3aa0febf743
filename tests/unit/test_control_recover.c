// Recovery of control's store: what nodes tell of their records, and what control makes of it.
#include "control_rig.h"

// An agent as a process of its own, that answers each question for records with the next of these lines, and the last one for ever.
static pid_t start_teller(const struct rig *r, const char *const *answers)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct fake a = agent_connect(r);
    agent_hello(&a, NODE);
    for (json_t *message; (message = hear(&a)); json_decref(message)) {
        if (!is_type(message, "records"))
            continue;
        json_t *answer = json_loads(*answers, 0, NULL);
        json_object_set_new(answer, "type", json_string("reply"));
        json_object_set(answer, "n", json_object_get(message, "n"));
        say(&a, answer);
        answers += answers[1] != NULL;
    }
    _exit(0);
}

#define V1 "11111111-0000-4000-8000-000000000001"
#define V2 "11111111-0000-4000-8000-000000000002"
#define RECORD(id, epoch) RECORD_OF(id, epoch, "7")
#define RECORD_OF(id, epoch, revision) \
    "{\"id\": \"" id "\", \"volume\": {\"id\": \"" id "\", \"name\": \"db\", \"size\": 0, \"metadata\": {}, \"options\": {\"uid\": 0, \"gid\": 0, " \
    "\"mode\": 511, \"nocow\": false}, \"owner\": \"" NODE "\", \"target\": \"" NODE "\", \"epoch\": " epoch ", \"revision\": " revision ", " \
    "\"state\": \"live\", \"born\": true, \"keep_mounted\": false, \"created_ms\": 1, \"trashed_ms\": 0, \"purge_ms\": 0}}"

// Records come in pages. A node that tells what makes no sense is asked no further, and is not taken for heard.
static void test_recovery(void **state)
{
    static const struct {
        const char *answers[4];
        const char *error; // of the node; NULL: none
        int taken;
    } cases[] = {
        { { "{\"records\": [" RECORD(V1, "3") "], \"more\": true}", "{\"records\": [" RECORD(V2, "1") "], \"more\": false}" }, NULL, 2 },
        { { "{\"records\": []}" }, NULL, 0 },
        { { "{\"records\": [" RECORD(V2, "3") "," RECORD(V1, "1") "]}" }, "has no order", 1 },
        { { "{\"records\": [" RECORD(V1, "3") "], \"more\": true}" }, "has no order", 1 },
        { { "{\"records\": [], \"more\": true}" }, "holds no records", 0 },
        { { "{\"records\": 1}" }, "holds no records", 0 },
        { { "{\"records\": [" RECORD(V1, "0") "]}" }, "epoch", 0 },
        { { "{\"records\": [" RECORD(V1, "9223372036854775807") "]}" }, "no cluster gets there", 0 }, // there is no room for the next one
        { { "{\"records\": [" RECORD_OF(V1, "3", "9223372036854775807") "]}" }, "no cluster gets there", 0 },
        { { "{\"records\": [{\"id\": \"" V1 "\"}]}" }, NULL, 0 },
        { { "{\"error\": {\"code\": \"io-error\", \"message\": \"a sick disk\"}}" }, "a sick disk", 0 },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct rig r = { .pid = 0 };
        json_t *reply = NULL;
        start(&r, &store_sqlite, 60000);
        pid_t teller = start_teller(&r, cases[i].answers);
        for (int synced = 0; !synced; usleep(10000)) {
            assert_int_equal(call(&r, "POST", "/v2/recover", "{\"dry_run\": true}", &reply), 200);
            const json_t *node = json_array_get(json_object_get(reply, "nodes"), 0);
            const char *why = json_string_value(json_object_get(json_object_get(node, "error"), "description"));
            synced = node && (!why || !strstr(why, "not connected"));
            if (synced && cases[i].error)
                assert_true(why && strstr(why, cases[i].error));
            else if (synced)
                assert_null(why);
            json_decref(reply);
        }
        kill(teller, SIGKILL);
        waitpid(teller, NULL, 0);
        assert_int_equal(call(&r, "GET", "/v2/volumes", NULL, &reply), 200);
        assert_int_equal(json_array_size(reply), 0); // it was a dry run
        json_decref(reply);
        teller = start_teller(&r, cases[i].answers);
        for (int synced = 0; !synced; usleep(10000)) {
            assert_int_equal(call(&r, "GET", "/v2/status", NULL, &reply), 200);
            synced = json_integer_value(json_object_get(json_object_get(reply, "nodes"), "connected")) == 1;
            json_decref(reply);
        }
        usleep(100000); // for its inventory
        assert_int_equal(call(&r, "POST", "/v2/recover", "{}", NULL), 200);
        assert_int_equal(call(&r, "GET", "/v2/volumes", NULL, &reply), 200);
        assert_int_equal(json_array_size(reply), cases[i].taken);
        json_decref(reply);
        kill(teller, SIGKILL);
        waitpid(teller, NULL, 0);
        stop(&r);
    }
    struct rig r = { .pid = 0 };
    start(&r, &store_memory, 60000);
    assert_int_equal(call(&r, "POST", "/v2/recover", "{\"dry_run\": 1}", NULL), 400);
    assert_int_equal(call(&r, "POST", "/v2/recover", "{}", NULL), 200); // with nobody there
    stop(&r);
}

// A volume that control knows, and of which a node has told no more than a copy, is shown as itself.
static void test_recovery_shows_a_copy_of_what_is_known(void **state)
{
    (void)state;
    static const char *const answers[] = { "{\"records\": [" RECORD(V1, "3") "," RECORD(V2, "3") "]}",
                                           "{\"records\": [" RECORD(V1, "3") ", {\"id\": \"" V2 "\"}]}", NULL };
    struct rig r = { .pid = 0 };
    json_t *reply = NULL;
    start(&r, &store_memory, 60000);
    pid_t teller = start_teller(&r, answers);
    for (size_t taken = 0; taken < 2; usleep(10000)) { // until it is there to be asked
        assert_int_equal(call(&r, "POST", "/v2/recover", "{}", &reply), 200);
        taken = json_array_size(json_object_get(reply, "volumes"));
        json_decref(reply);
    }
    assert_int_equal(call(&r, "POST", "/v2/recover", "{}", &reply), 200);
    const json_t *list = json_object_get(reply, "volumes"), *volume = json_array_get(list, 0);
    assert_int_equal(json_array_size(list), 1);
    assert_string_equal(json_string_value(json_object_get(volume, "id")), V2);
    assert_string_equal(json_string_value(json_object_get(volume, "name")), "db-11111111");
    assert_string_equal(json_string_value(json_object_get(volume, "verdict")), "known");
    const json_t *kept = json_array_get(json_object_get(volume, "kept"), 0);
    assert_string_equal(json_string_value(json_object_get(kept, "what")), "copy");
    json_decref(reply);
    kill(teller, SIGKILL);
    waitpid(teller, NULL, 0);
    stop(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recovery),
        cmocka_unit_test(test_recovery_shows_a_copy_of_what_is_known),
    };
    return RUN_TESTS(tests);
}
