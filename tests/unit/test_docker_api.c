// What the engine is told of a container, and how its answers are read: an engine that says what the test wants.
#include "test.h"

#include "agent/docker_api.h"
#include "base/mem.h"
#include "net/socket.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define NODE    "0e2d7f4c-58f5-4b0e-9a27-1f6f7f0c6a11"
#define DATASET "a4c1b1b6-5d70-4b8e-b1a4-9d3b5e7f8a22"

static const struct uuid era = { { 7 } };

static struct container *make(const char *members)
{
    struct error e = ERROR_INIT;
    struct container *c = NULL;
    AUTO(free) char *text = xasprintf("{\"node_uuid\": \"" NODE "\", \"name\": \"web\", \"image\": \"img\"%s}", members);
    json_t *body = json_loads(text, 0, NULL);
    int rc = container_from_v1(body, &c, &e);
    json_decref(body);
    if (rc < 0)
        fail_msg("%s", e.msg);
    return c;
}

static void assert_body(const char *members, const char *want)
{
    const struct docker_place place = { .host = "10.0.0.1", .mount_point = "/flocker/x", .era = era };
    AUTO(container_free) struct container *c = make(members);
    json_t *have = docker_create_body(c, &place), *expected = json_loads(want, 0, NULL);
    assert_non_null(expected);
    AUTO(free) char *text = json_dumps(have, JSON_SORT_KEYS);
    if (!json_equal(have, expected))
        fail_msg("have %s\nwant %s", text, want);
    json_decref(have);
    json_decref(expected);
}

#define LABELS "\"flocker.container\": \"web\", \"flocker.revision\": \"1\", \"flocker.era\": \"07000000-0000-0000-0000-000000000000\""

static void the_engine_is_told_all(void **state)
{
    (void)state;
    assert_body("", "{\"Image\": \"img:latest\", \"Env\": [], \"Labels\": {" LABELS "}, \"ExposedPorts\": {}, "
                    "\"HostConfig\": {\"RestartPolicy\": {\"Name\": \"no\"}, \"PortBindings\": {}}}");
    assert_body(", \"environment\": {\"A\": \"b=c\"}, \"links\": [{\"alias\": \"Db\", \"local_port\": 5432, \"remote_port\": 15432}], "
                "\"ports\": [{\"internal\": 80, \"external\": 8080}, {\"internal\": 80, \"external\": 8081}], \"cpu_shares\": 5, \"memory_limit\": 2000000, "
                "\"swappiness\": 9, \"command_line\": [\"a\", \"b c\"], \"volumes\": [{\"dataset_id\": \"" DATASET "\", \"mountpoint\": \"/d\"}]",
                "{\"Image\": \"img:latest\", \"Cmd\": [\"a\", \"b c\"], \"Env\": [\"DB_PORT_5432_TCP=tcp://10.0.0.1:15432\", "
                "\"DB_PORT_5432_TCP_ADDR=10.0.0.1\", \"DB_PORT_5432_TCP_PORT=15432\", \"DB_PORT_5432_TCP_PROTO=tcp\", \"A=b=c\"], "
                "\"Labels\": {" LABELS ", \"flocker.volume\": \"" DATASET "\"}, \"ExposedPorts\": {\"80/tcp\": {}}, \"HostConfig\": "
                "{\"RestartPolicy\": {\"Name\": \"no\"}, \"PortBindings\": {\"80/tcp\": [{\"HostPort\": \"8080\"}, {\"HostPort\": \"8081\"}]}, "
                "\"Memory\": 2000000, \"CpuShares\": 5, \"MemorySwappiness\": 9, "
                "\"Mounts\": [{\"Type\": \"bind\", \"Source\": \"/flocker/x\", \"Target\": \"/d\"}]}}");
}

// ---- an engine

#define SOCKET "/tmp/test-docker-api.sock"

struct canned {
    const char *request; // how its first line begins
    int status;
    const char *body;
};

// Answers these requests, one after the other, and ends with 0 if they came so.
static pid_t engine(const struct canned *answers)
{
    struct error e = ERROR_INIT;
    int fd = socket_listen_unix(SOCKET, 0600, &e);
    assert_true(fd >= 0);
    fflush(NULL);
    pid_t pid = fork();
    if (pid) {
        close(fd);
        return pid;
    }
    alarm(20);
    for (; answers->request; answers++) {
        char text[8192] = "";
        struct timeval limit = { 10, 0 };
        fd_set set;
        FD_ZERO(&set);
        FD_SET(fd, &set);
        if (select(fd + 1, &set, NULL, NULL, &limit) != 1)
            _exit(2);
        int peer = accept(fd, NULL, NULL);
        if (read(peer, text, sizeof text - 1) <= 0 || strncmp(text, answers->request, strlen(answers->request)) != 0 || !strstr(text, " HTTP/1.0\r\n"))
            _exit(1);
        dprintf(peer, "HTTP/1.0 %d x\r\nContent-Type: application/json\r\n\r\n%s", answers->status, answers->body);
        close(peer);
    }
    _exit(0);
}

static void assert_end(pid_t pid)
{
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    unlink(SOCKET);
}

static void answers_are_read(void **state)
{
    static const struct canned answers[] = {
        { "GET /containers/flocker--web/json ", 404, "{\"message\": \"no such container\"}" },
        { "GET /containers/flocker--web/json ", 200, "{\"State\": {\"Running\": true, \"Pid\": 7, \"StartedAt\": \"2026-01-01T00:00:00Z\"}, "
          "\"Config\": {\"Image\": \"img:latest\", \"Labels\": {\"flocker.container\": \"web\", \"flocker.revision\": \"3\", \"flocker.era\": \"" NODE "\"}}}" },
        { "GET /containers/flocker--web/json ", 200, "{\"State\": {\"ExitCode\": 3, \"StartedAt\": \"0001-01-01T00:00:00Z\"}, \"Config\": {\"Labels\": null}}" },
        { "GET /containers/flocker--web/json ", 200, "nonsense" },
        { "GET /containers/flocker--web/json ", 500, "{\"message\": \"out of order\"}" },
        { NULL, 0, NULL },
    };
    static const char *const wanted[] = {
        "{\"present\": false}",
        "{\"present\": true, \"ours\": true, \"running\": true, \"started\": true, \"exit\": 0, \"pid\": 7, \"revision\": 3, \"era\": \"" NODE "\", "
        "\"image\": \"img:latest\"}",
        "{\"present\": true, \"ours\": false, \"running\": false, \"started\": false, \"exit\": 3, \"pid\": 0, \"revision\": 0, \"era\": \"\", \"image\": \"\"}",
        "{\"present\": true, \"ours\": false, \"running\": false, \"started\": false, \"exit\": 0, \"pid\": 0, \"revision\": 0, \"era\": \"\", \"image\": \"\"}",
    };
    struct error e = ERROR_INIT;
    (void)state;
    pid_t pid = engine(answers);
    for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
        json_t *result = json_object(), *want = json_loads(wanted[i], 0, NULL);
        assert_int_equal(docker_look(SOCKET, "web", result, &e), 0);
        assert_true(json_equal(result, want));
        json_decref(result);
        json_decref(want);
    }
    json_t *result = json_object();
    assert_int_equal(docker_look(SOCKET, "web", result, &e), -E_IO);
    assert_non_null(strstr(e.msg, "out of order"));
    assert_end(pid);
    assert_int_equal(docker_look(SOCKET, "web", result, &e), -E_UNAVAILABLE);
    json_decref(result);
}

static void an_image_is_pulled_once(void **state)
{
    static const struct canned good[] = {
        { "POST /containers/create?name=flocker--web ", 404, "{\"message\": \"No such image\"}" },
        { "POST /images/create?fromImage=img%3Alatest ", 200, "{\"status\":\"Pulling\"}\r\n{\"status\":\"done\"}\r\n" },
        { "POST /containers/create?name=flocker--web ", 201, "{\"Id\": \"x\"}" },
        { NULL, 0, NULL },
    }, fails[] = {
        { "POST /containers/create?name=flocker--web ", 404, "{\"message\": \"No such image\"}" },
        { "POST /images/create?fromImage=img%3Alatest ", 200, "{\"status\":\"x\"}\r\n{\"errorDetail\":{\"message\":\"m\"},\"error\":\"no registry\"}\r\n" },
        { "POST /containers/create?name=flocker--web ", 404, "{\"message\": \"No such image\"}" },
        { "POST /images/create?fromImage=img%3Alatest ", 200, "" },
        { "POST /containers/create?name=flocker--web ", 404, "{\"message\": \"No such image\"}" },
        { "POST /containers/create?name=flocker--web ", 409, "{\"message\": \"in use\"}" },
        { NULL, 0, NULL },
    };
    struct error e = ERROR_INIT;
    const struct docker_place place = { .socket = SOCKET, .host = "10.0.0.1", .era = era };
    AUTO(container_free) struct container *c = make("");
    (void)state;
    pid_t pid = engine(good);
    assert_int_equal(docker_create(c, &place, &e), 0);
    assert_end(pid);
    pid = engine(fails);
    assert_int_equal(docker_create(c, &place, &e), -E_IO);
    assert_non_null(strstr(e.msg, "no registry"));
    assert_int_equal(docker_create(c, &place, &e), -E_NOT_FOUND);
    assert_int_equal(docker_create(c, &place, &e), -E_CONFLICT);
    assert_non_null(strstr(e.msg, "in use"));
    assert_end(pid);
}

static void what_is_so_already_is_a_success(void **state)
{
    static const struct canned answers[] = {
        { "POST /containers/flocker--web/start ", 304, "" },  { "POST /containers/flocker--web/start ", 500, "{\"message\": \"port is in use\"}" },
        { "POST /containers/flocker--web/stop?t=10 ", 304, "" }, { "DELETE /containers/flocker--web?force=1 ", 204, "" },
        { "POST /containers/flocker--web/stop?t=10 ", 404, "" }, { "DELETE /containers/flocker--web?force=1 ", 404, "" },
        { "POST /containers/flocker--web/stop?t=10 ", 500, "{}" }, { NULL, 0, NULL },
    };
    struct error e = ERROR_INIT;
    (void)state;
    pid_t pid = engine(answers);
    assert_int_equal(docker_start(SOCKET, "web", &e), 0);
    assert_int_equal(docker_start(SOCKET, "web", &e), -E_IO);
    assert_non_null(strstr(e.msg, "port is in use"));
    assert_int_equal(docker_remove(SOCKET, "web", &e), 0);
    assert_int_equal(docker_remove(SOCKET, "web", &e), 0);
    assert_int_equal(docker_remove(SOCKET, "web", &e), -E_IO);
    assert_end(pid);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_engine_is_told_all),
        cmocka_unit_test(answers_are_read),
        cmocka_unit_test(an_image_is_pulled_once),
        cmocka_unit_test(what_is_so_already_is_a_success),
    };
    return RUN_TESTS(tests);
}
