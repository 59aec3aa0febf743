// The command line against a server that answers whatever a test wants: tables, JSON, errors and exit statuses, help, manual,
// completion.
#include "test.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/uuid.h"
#include "cli/internal.h"
#include "net/http.h"
#include "net/pki.h"
#include "net/socket.h"

#include <event2/event.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define ID   "0e2d7f4c-58f5-4b0e-9a27-1f6f7f0c6a11"
#define NODE "7d1c2b3a-0000-4000-8000-00000000beef"
#define OTHER "7d1c2b3a-0000-4000-8000-00000000cafe"

// ---- a server in a thread -----------------------------------------------------------------------------------------------------

struct canned {
    const char *method, *target; // NULL: any
    int status;
    const char *body;
    const char *extra; // headers; NULL
};

static struct {
    pthread_t thread;
    pthread_mutex_t lock;
    struct event_base *base;
    struct event *stop;
    int stop_fd;
    struct http_server *servers[2];
    char root[64];
    const struct canned *replies; // the first that fits; ends with a zero status
    char *log;                    // "METHOD target body\n" per request
} stub = { .lock = PTHREAD_MUTEX_INITIALIZER };

static const struct canned *find_reply(const struct http_message *m)
{
    static const struct canned nothing = { NULL, NULL, 404, "{\"description\": \"There is nothing at this path.\"}" };
    for (const struct canned *c = stub.replies; c && c->status; c++)
        if ((!c->method || strcmp(c->method, m->method) == 0) && (!c->target || strcmp(c->target, m->target) == 0))
            return c;
    return &nothing;
}

static void on_request(struct http_exchange *x, void *arg)
{
    size_t n;
    const struct http_message *m = http_request(x);
    const char *body = http_body(x, &n);
    (void)arg;
    pthread_mutex_lock(&stub.lock);
    char *longer = xasprintf("%s%s %s%s%s\n", stub.log, m->method, m->target, n ? " " : "", body);
    free(stub.log);
    stub.log = longer;
    const struct canned *c = find_reply(m);
    pthread_mutex_unlock(&stub.lock);
    if (c->status == -1)
        http_drop(x);
    else
        http_reply(x, c->status, c->extra ? c->extra : "", "application/json", c->body, strlen(c->body), NULL, NULL);
}

static void on_stop(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    event_base_loopbreak(arg);
}

static void *serve(void *arg)
{
    event_base_dispatch(arg);
    return NULL;
}

static void listen_at(size_t i, const char *name)
{
    struct error e = ERROR_INIT;
    AUTO(free) char *path = xasprintf("%s/run/flocker/%s", stub.root, name);
    struct http_server_config config = { .base = stub.base,
                                         .listen_fd = socket_listen_unix(path, 0600, &e),
                                         .on_request = on_request };
    assert_true(config.listen_fd >= 0);
    stub.servers[i] = http_server_new(&config, &e);
    assert_non_null(stub.servers[i]);
}

static int start_stub(void **state)
{
    (void)state;
    snprintf(stub.root, sizeof stub.root, "/tmp/flocker-cli-XXXXXX");
    assert_non_null(mkdtemp(stub.root));
    static const char *const folders[] = { "/run", "/run/flocker" };
    for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
        AUTO(free) char *path = xasprintf("%s%s", stub.root, folders[i]);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    stub.log = xstrdup("");
    stub.base = event_base_new();
    stub.stop_fd = eventfd(0, EFD_CLOEXEC);
    stub.stop = event_new(stub.base, stub.stop_fd, EV_READ, on_stop, stub.base);
    event_add(stub.stop, NULL);
    listen_at(0, "control.sock");
    listen_at(1, "agent.sock");
    return pthread_create(&stub.thread, NULL, serve, stub.base);
}

static int stop_stub(void **state)
{
    static const char *const paths[] = {
        "/run/flocker/control.sock", "/run/flocker/agent.sock", "/run/flocker", "/run", "/script", ""
    };
    (void)state;
    assert_int_equal(eventfd_write(stub.stop_fd, 1), 0);
    pthread_join(stub.thread, NULL);
    http_server_free(stub.servers[0]);
    http_server_free(stub.servers[1]);
    event_free(stub.stop);
    event_base_free(stub.base);
    close(stub.stop_fd);
    free(stub.log);
    for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
        AUTO(free) char *path = xasprintf("%s%s", stub.root, paths[i]);
        remove(path);
    }
    return 0;
}

static void answer_with(const struct canned *replies)
{
    pthread_mutex_lock(&stub.lock);
    stub.replies = replies;
    stub.log[0] = '\0';
    pthread_mutex_unlock(&stub.lock);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(path);
}

// ---- running the program ------------------------------------------------------------------------------------------------------

static char *out, *err;
static const struct cli_command *roles;

static int run_argv(int argc, char **argv)
{
    size_t out_n, err_n;
    free(out);
    free(err);
    FILE *out_file = open_memstream(&out, &out_n), *err_file = open_memstream(&err, &err_n);
    assert_non_null(out_file);
    assert_non_null(err_file);
    int status = cli_run(argc, argv, roles, out_file, err_file);
    fclose(out_file);
    fclose(err_file);
    return status;
}

// Words parted by one space each; "~" stands for the empty word.
static int run_plain(const char *line)
{
    AUTO(free) char *copy = xstrdup(line);
    char *argv[32] = { NULL }, *at = copy;
    int argc = 0;
    while (at) {
        char *word = strsep(&at, " ");
        argv[argc++] = strcmp(word, "~") == 0 ? word + 1 : word;
        assert_true(argc < 32);
    }
    return run_argv(argc, argv);
}

// "flocker --root ROOT <line>"
static int run(const char *line)
{
    AUTO(free) char *whole = xasprintf("flocker --root %s %s", stub.root, line);
    return run_plain(whole);
}

static void assert_in(const char *text, const char *part)
{
    if (!strstr(text, part))
        print_error("\"%s\" is not in:\n%s\n", part, text);
    assert_non_null(strstr(text, part));
}

static json_t *document(const char *text)
{
    json_t *ret = json_loads(text, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    if (!ret)
        print_error("not one JSON document:\n%s\n", text);
    assert_non_null(ret);
    return ret;
}

// What the server was asked, compared as JSON where there is a body.
static void assert_asked(const char *head, const char *body)
{
    pthread_mutex_lock(&stub.lock);
    AUTO(free) char *log = xstrdup(stub.log);
    pthread_mutex_unlock(&stub.lock);
    assert_int_equal(strncmp(log, head, strlen(head)), 0);
    AUTO(json_decref) json_t *sent = document(log + strlen(head));
    AUTO(json_decref) json_t *wanted = document(body);
    if (!json_equal(sent, wanted))
        print_error("sent: %s\n", log);
    assert_true(json_equal(sent, wanted));
}

static void assert_log(const char *wanted)
{
    pthread_mutex_lock(&stub.lock);
    AUTO(free) char *log = xstrdup(stub.log);
    pthread_mutex_unlock(&stub.lock);
    assert_string_equal(log, wanted);
}

// ---- volumes ------------------------------------------------------------------------------------------------------------------

#define VOLUME(name, state, more)                                                                                                  \
    "{\"id\": \"" ID "\", \"name\": " name ", \"state\": \"" state "\", \"size\": 1073741824, \"owner\": \"" NODE                  \
    "\", \"host\": \"10.0.0.1\", " more "}"
#define READY   "\"ready\": true, \"mounted\": true, \"created\": null, \"purge\": null"
#define TRASHED "\"ready\": false, \"mounted\": false, \"created\": null, \"purge\": \"2026-01-02T03:04:05.678Z\""

static const struct canned volumes[] = {
    { "GET", "/v2/volumes?all=1", 200,
      "[" VOLUME("\"db\"", "live", READY) ", " VOLUME(
          "\"a\\u001b[31mb\\n\\u202ec\"", "live",
          "\"ready\": false, \"error\": {\"code\": "
          "\"no-space\", \"description\": \"the pool is\\nfull\"}") ", " VOLUME("null", "trashed", TRASHED) "]" },
    { "GET", "/v2/volumes", 200, "[]" },
    { 0 },
};

static void volumes_are_a_table(void **state)
{
    (void)state;
    answer_with(volumes);
    assert_int_equal(run("volume ls --all"), 0);
    assert_string_equal(out, "NAME                                  SIZE  STATE    NODE      MOUNTED  NOTE\n" ID
                             "  1GiB  trashed  10.0.0.1  no       can be restored until 2026-01-02 03:04 UTC\n"
                             "a\\x1b[31mb\\x0a\\xe2\\x80\\xaec           1GiB  pending  10.0.0.1  no       the pool is\\x0afull\n"
                             "db                                    1GiB  ready    10.0.0.1  yes\n");
    assert_string_equal(err, "");
    assert_int_equal(run("volume ls -aq"), 0);
    assert_string_equal(out, ID "\na\\x1b[31mb\\x0a\\xe2\\x80\\xaec\ndb\n");
    assert_int_equal(run("volume ls"), 0);
    assert_string_equal(out, "NAME  SIZE  STATE  NODE  MOUNTED  AGE  NOTE\n");
}

// A long list comes in pages, which are followed to the end.
static void volumes_come_in_pages(void **state)
{
    static const struct canned pages[] = {
        { "GET", "/v2/volumes", 200, "[" VOLUME("\"b\"", "live", READY) "]", "Link: </v2/volumes?after=1&limit=1>; rel=\"next\"\r\n" },
        { "GET", "/v2/volumes?after=1&limit=1", 200, "[]", "Link: </v2/volumes?after=2&limit=1>; rel=\"next\"\r\n" },
        { "GET", "/v2/volumes?after=2&limit=1", 200, "[" VOLUME("\"a\"", "live", READY) "]", "Link: <http://x/>; rel=\"next\"\r\n" },
        { 0 },
    };
    static const struct canned broken[] = { { "GET", "/v2/volumes", 200, "[]", "Link: </x>; rel=\"next\"\r\n" }, { NULL, "/x", 200, "{}" }, { 0 } };
    (void)state;
    answer_with(pages);
    assert_int_equal(run("volume ls -q"), 0);
    assert_string_equal(out, "a\nb\n");
    assert_log("GET /v2/volumes\nGET /v2/volumes?after=1&limit=1\nGET /v2/volumes?after=2&limit=1\n");
    answer_with(broken);
    assert_int_not_equal(run("volume ls"), 0);
    assert_in(err, "no list");
}

static void volumes_are_json(void **state)
{
    (void)state;
    answer_with(volumes);
    assert_int_equal(run("volume --json ls -a"), 0);
    AUTO(json_decref) json_t *got = document(out);
    AUTO(json_decref) json_t *sent = document(volumes[0].body);
    assert_true(json_equal(got, sent));
    assert_int_equal(run("volume ls --json"), 0);
    assert_string_equal(out, "[]\n");
}

static void create_sends_every_option(void **state)
{
    static const struct canned created[] = { { "POST", "/v2/volumes?wait=30", 201, VOLUME("\"db\"", "live", READY) }, { 0 } };
    (void)state;
    answer_with(created);
    assert_int_equal(
        run("volume create db -s 1.5G --uid 999 --gid 998 --mode 0750 --nocow --profile gold -m a=b=c -m a=d -m e= --node " NODE),
        0);
    assert_string_equal(out, "db\n");
    assert_asked("POST /v2/volumes?wait=30 ",
                 "{\"name\": \"db\", \"size\": 1610612736, \"owner\": \"" NODE
                 "\", \"options\": {\"uid\": 999, \"gid\": 998, \"mode\": 488, "
                 "\"nocow\": true}, \"metadata\": {\"clusterhq:flocker:profile\": \"gold\", \"a\": \"d\", \"e\": \"\"}}");
    answer_with(created);
    assert_int_equal(run("volume create db --json --size none"), 0);
    assert_asked("POST /v2/volumes?wait=30 ",
                 "{\"name\": \"db\", \"size\": 0, \"options\": {\"uid\": 0, \"gid\": 0, \"mode\": 511, \"nocow\": false}}");
    AUTO(json_decref) json_t *got = document(out);
    assert_string_equal(json_string_value(json_object_get(got, "id")), ID);
}

// The wish was taken, but it is not what the user waits for.
static void what_the_node_could_not_do_is_a_failure(void **state)
{
    static const struct canned failed[] = {
        { "POST", NULL, 201,
          VOLUME("\"db\"", "live",
                 "\"ready\": false, \"error\": {\"code\": \"no-space\", \"description\": \"the pool is full\"}") },
        { "PATCH", NULL, 200, VOLUME("\"db\"", "live", "\"ready\": true, \"error\": {\"code\": \"new-word\"}") },
        { 0 },
    };
    static const struct canned late[] = { { "POST", NULL, 200, VOLUME("\"db\"", "live", "\"ready\": false") }, { 0 } };
    (void)state;
    answer_with(failed);
    assert_int_equal(run("volume create db"), error_exit(E_NO_SPACE));
    assert_in(err, "flocker: volume db is created, but not on its node yet: the pool is full\n");
    assert_int_equal(run("volume create db --json"), error_exit(E_NO_SPACE));
    AUTO(json_decref) json_t *got = document(out);
    assert_string_equal(json_string_value(json_object_get(json_object_get(got, "error"), "code")), "no-space");
    assert_string_equal(json_string_value(json_object_get(json_object_get(got, "result"), "id")), ID);
    assert_int_equal(run("volume resize db 5G"), error_exit(E_IO));
    answer_with(late);
    assert_int_equal(run("volume create db"), error_exit(E_TIMEOUT));
    assert_int_equal(run("volume restore db"), error_exit(E_TIMEOUT));
}

static void names_are_encoded(void **state)
{
    static const struct canned any[] = { { NULL, NULL, 200, VOLUME("\"db\"", "live", READY) }, { 0 } };
    char hostile[] = "a/../b?c#d%\xff \n\xc3\xa9", flocker[] = "flocker", root[] = "--root", volume[] = "volume",
         inspect[] = "inspect";
    char *argv[] = { flocker, root, stub.root, volume, inspect, hostile, NULL };
    (void)state;
    answer_with(any);
    assert_int_equal(run_argv(6, argv), 0);
    assert_log("GET /v2/volumes/a%2F..%2Fb%3Fc%23d%25%FF%20%0A%C3%A9?usage=1\n");
    answer_with(any);
    assert_int_equal(run("volume inspect ~"), error_exit(E_INVALID));
    AUTO(free) char *line = xasprintf("volume inspect %0300d", 0);
    assert_int_equal(run(line), error_exit(E_INVALID));
    assert_log("");
}

static void inspect_shows_all(void **state)
{
    static const struct canned one[] = {
        { "GET", "/v2/volumes/db?usage=1", 200,
          VOLUME("\"db\"", "live",
                 READY ", \"used\": 1536, \"path\": \"/flocker/x\", \"metadata\": {\"k\\u0007\": \"v\"}, \"options\": {\"uid\": 1, \"gid\": 2, "
                       "\"mode\": 488, \"nocow\": true}") },
        { "GET", "/v2/volumes/none?usage=1", 404, "{\"code\": \"not-found\", \"description\": \"no such volume: none\"}" },
        { 0 },
    };
    (void)state;
    answer_with(one);
    assert_int_equal(run("volume inspect db"), 0);
    assert_string_equal(out, "db\n  id         " ID "\n  state      ready\n  size       1GiB\n  used       1.50KiB\n  node       10.0.0.1 (" NODE ")\n"
                             "  mounted    yes\n  path       /flocker/x\n  made with  uid 1, gid 2, mode 0750, no copy-on-write\n"
                             "  metadata   k\\x07=v\n");
    // One name that is wrong does not hide the other.
    assert_int_equal(run("volume inspect none db --json"), error_exit(E_NOT_FOUND));
    assert_string_equal(err, "flocker: no such volume: none\n");
    AUTO(json_decref) json_t *got = document(out);
    assert_string_equal(json_string_value(json_object_get(json_object_get(got, "error"), "message")), "no such volume: none");
    assert_int_equal(json_array_size(json_object_get(got, "result")), 1);
    assert_int_equal(run("volume inspect none none"), error_exit(E_NOT_FOUND));
    assert_string_equal(err, "flocker: no such volume: none; no such volume: none\n");
}

static void resize_takes_none(void **state)
{
    static const struct canned ok[] = { { "PATCH", "/v2/volumes/db?wait=30", 200, VOLUME("\"db\"", "live", READY) }, { 0 } };
    (void)state;
    answer_with(ok);
    assert_int_equal(run("volume resize db 64MiB"), 0);
    assert_string_equal(out, "db can hold 64MiB now\n");
    assert_asked("PATCH /v2/volumes/db?wait=30 ", "{\"size\": 67108864}");
    answer_with(ok);
    assert_int_equal(run("volume resize db none"), 0);
    assert_string_equal(out, "db has no limit of its own now\n");
    assert_asked("PATCH /v2/volumes/db?wait=30 ", "{\"size\": 0}");
}

#define MOVING(move) "{\"id\": \"" ID "\", \"name\": \"db\", \"state\": \"live\", \"size\": 0, \"owner\": \"" NODE "\", \"host\": \"10.0.0.1\", " \
                     "\"target\": \"" ID "\", \"ready\": true, \"mounted\": true, \"move\": {\"stage\": \"warm\", \"host\": \"10.0.0.2\"" move "}}"

static void moves_name_the_host(void **state)
{
    static const struct {
        const char *reply, *said;
    } cases[] = {
        { MOVING(""), "db moves to 10.0.0.2 (warm)\n" },
        { MOVING(", \"bytes\": 1024, \"total\": 4096"), "db moves to 10.0.0.2: 25 % of 4KiB\n" },
        { MOVING(", \"error\": {\"code\": \"unavailable\", \"description\": \"that node is not connected\"}"),
          "db moves to 10.0.0.2: that node is not connected\n" },
        { "{\"name\": \"db\", \"owner\": \"" NODE "\", \"target\": \"" ID "\", \"in_use\": true, "
          "\"move\": {\"stage\": \"warm\", \"host\": \"10.0.0.2\"}}",
          "db moves to 10.0.0.2 (warm); it is in use, and goes when that ends\n" },
        { "{\"name\": \"db\", \"owner\": \"" NODE "\", \"host\": \"10.0.0.2\", \"target\": \"" NODE "\", \"ready\": true}",
          "db is on node 10.0.0.2 (" NODE ")\n" },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct canned canned[] = { { "POST", "/v2/volumes/db/move", 200, cases[i].reply }, { 0 } };
        answer_with(canned);
        assert_int_equal(run("volume move db 10.0.0.2"), 0);
        assert_string_equal(out, cases[i].said);
    }
}

static void removed_volumes_can_come_back(void **state)
{
    static const struct canned ok[] = {
        { "DELETE", "/v2/volumes/db?wait=30", 200,
          VOLUME("\"db\"", "trashed", TRASHED ", \"error\": {\"code\": \"unavailable\"}") },
        { "DELETE", "/v2/volumes/new?wait=30", 200, VOLUME("\"new\"", "deleted", TRASHED) },
        { "POST", "/v2/volumes/db/restore?wait=30", 200, VOLUME("\"old\"", "live", READY) },
        { 0 },
    };
    (void)state;
    answer_with(ok);
    assert_int_equal(run("volume rm db new"), 0);
    assert_string_equal(out, "db is in the trash until 2026-01-02 03:04 UTC; to have it back: flocker volume restore db\n"
                             "new is gone; it held no data\n");
    answer_with(ok);
    assert_int_equal(run("volume restore db --as old"), 0);
    assert_string_equal(out, "old is back\n");
    assert_asked("POST /v2/volumes/db/restore?wait=30 ", "{\"name\": \"old\"}");
    answer_with(ok);
    assert_int_equal(run("volume restore db"), 0);
    assert_asked("POST /v2/volumes/db/restore?wait=30 ", "{}");
    assert_int_equal(run("volume restore db --as ../x"), error_exit(E_INVALID));
}

// A live volume goes to the trash first, and from there on its id is meant, not its name.
static void purge_goes_through_the_trash(void **state)
{
    static const struct canned live[] = {
        { "GET", "/v2/volumes/db", 200, VOLUME("\"db\"", "live", READY) },
        { "DELETE", "/v2/volumes/" ID "?wait=30", 200, VOLUME("\"db\"", "trashed", TRASHED) },
        { "DELETE", "/v2/volumes/" ID "?purge=1&wait=30", 200, VOLUME("\"db\"", "deleted", TRASHED) },
        { 0 },
    };
    static const struct canned in_use[] = {
        { "GET", NULL, 200, VOLUME("\"db\"", "live", READY) },
        { "DELETE", NULL, 409, "{\"code\": \"in-use\", \"description\": \"container web uses volume db\"}" },
        { 0 },
    };
    static const struct canned slow[] = {
        { "GET", NULL, 200, VOLUME("\"db\"", "trashed", TRASHED) },
        { "DELETE", NULL, 200, VOLUME("\"db\"", "purging", TRASHED) },
        { 0 },
    };
    static const struct canned forgotten[] = { { "GET", NULL, 200, VOLUME("\"db\"", "trashed", TRASHED) }, { 0 } };
    (void)state;
    answer_with(live);
    assert_int_equal(run("volume rm --purge db"), 0);
    assert_string_equal(out, "db is destroyed\n");
    assert_log("GET /v2/volumes/db\nDELETE /v2/volumes/" ID "?wait=30\nDELETE /v2/volumes/" ID "?purge=1&wait=30\n");
    answer_with(in_use);
    assert_int_equal(run("volume rm --purge db"), error_exit(E_BUSY));
    assert_log("GET /v2/volumes/db\nDELETE /v2/volumes/" ID "?wait=30\n");
    answer_with(slow);
    assert_int_equal(run("volume rm --purge db"), error_exit(E_TIMEOUT));
    assert_log("GET /v2/volumes/db\nDELETE /v2/volumes/" ID "?purge=1&wait=30\n");
    answer_with(forgotten);
    assert_int_equal(run("volume rm --purge db --json"), 0);
}

// ---- nodes, pool, status, control ---------------------------------------------------------------------------------------------

static void nodes_and_eras(void **state)
{
    static const struct canned nodes[] = {
        { "GET", "/v2/nodes", 200, "[{\"id\": \"" NODE "\", \"host\": \"h\\u009bx\", \"era\": \"" ID "\", \"state\": \"up\", \"volumes\": 3, \"pool\": {\"size\": 4096, \"used\": 2048}},"
                                     " {\"id\": \"" ID "\", \"state\": \"removed\", \"booted\": \"2026-01-02T03:04:05.678Z\"},"
                                     " {\"id\": \"" OTHER "\", \"host\": \"h\", \"state\": \"draining\", \"volumes\": 2, \"in_use\": 1, "
                                     "\"drain\": {\"force\": false, \"problem\": null}},"
                                     " {\"id\": \"" OTHER "\", \"host\": \"h\", \"state\": \"down\", \"seen\": \"2026-01-02T03:04:05.678Z\"}]" },
        { 0 },
    };
    char program[] = "/usr/sbin/flocker-node-era";
    char *argv[] = { program, NULL };
    (void)state;
    answer_with(nodes);
    assert_int_equal(run("node ls"), 0);
    assert_in(out, "ID                                    HOST        STATE     VOLUMES  FREE  ERA                                   ERA AGE  NOTE\n" NODE
                   "  h\\xc2\\x9bx  up        3        2KiB  " ID "\n" ID "              removed   0                                                    ");
    assert_in(out, "2 volumes left, 1 of them in use or held\n");
    assert_in(out, "not connected since 2026-01-02T03:04:05.678Z\n");
    assert_int_equal(run("node ls --quiet"), 0);
    assert_string_equal(out, NODE "\n" ID "\n" OTHER "\n" OTHER "\n");
    assert_int_equal(run("node era"), 0);
    assert_int_equal(strlen(out), UUID_TEXT_SIZE - 1);
    AUTO(free) char *era = xstrdup(out);
    assert_int_equal(run_argv(1, argv), 0);
    assert_string_equal(out, era);
}

static void nodes_come_and_go(void **state)
{
    static const struct canned calls[] = {
        { "POST", "/v2/tokens", 201, "{\"token\": \"join1.x\\u009b\", \"expires\": \"2026-01-02T03:04:05.678Z\"}" },
        { "DELETE", "/v2/nodes/a%2Fb", 200, "{\"id\": \"" NODE "\"}" },
        { "DELETE", "/v2/nodes/n?force=1", 200, "{\"lost\": 2, \"rescued\": 1}" },
        { 0 },
    };
    (void)state;
    answer_with(calls);
    assert_int_equal(run("node token --ttl 60 --node 10.0.0.1"), 0);
    assert_string_equal(out, "join1.x\\xc2\\x9b\n");
    assert_asked("POST /v2/tokens ", "{\"ttl\": 60, \"node\": \"10.0.0.1\"}");
    assert_int_equal(run("node token --ttl 99999999"), error_exit(E_INVALID));
    assert_int_equal(run("node rm a/b"), 0);
    assert_string_equal(out, "node " NODE " is removed: its certificate is refused from now on\n");
    assert_int_equal(run("node rm --force n"), 0);
    assert_in(out, "1 volumes that were on their way are where there is another copy of them\n2 volumes were only there, and are lost");
}

static void users_are_revoked(void **state)
{
    static const struct canned calls[] = {
        { "GET", "/v2/users", 200, "[{\"name\": \"al\\u009bice\", \"revoked\": \"2026-01-02T03:04:05.678Z\", \"key\": \"0123456789abcdef0123\"},"
          " {\"name\": \"bob\", \"revoked\": \"2026-01-02T03:04:05.678Z\", \"key\": null}]" },
        { "DELETE", "/v2/users/a%2Fb", 200, "{}" },
        { "POST", "/v2/users/alice", 200, "{}" },
        { 0 },
    };
    char key[PKI_KEY_SIZE];
    struct error e = ERROR_INIT;
    (void)state;
    answer_with(calls);
    assert_int_equal(run("user ls"), 0);
    assert_string_equal(out, "NAME           REVOKED                   ADMITTED KEY\n"
                             "al\\xc2\\x9bice  2026-01-02T03:04:05.678Z  0123456789abcdef\n"
                             "bob            2026-01-02T03:04:05.678Z  none\n");
    assert_int_equal(run("user revoke a/b"), 0);
    assert_string_equal(out, "certificates of user a/b are refused from now on\n");
    assert_int_equal(run("user revoke ~"), error_exit(E_INVALID));
    AUTO(free) char *init = xasprintf("ca init c -o %s", stub.root);
    AUTO(free) char *user = xasprintf("ca user alice -i %s -o %s", stub.root, stub.root);
    AUTO(free) char *engine = xasprintf("ca engine -i %s -o %s", stub.root, stub.root);
    AUTO(free) char *admit = xasprintf("user admit %s/alice.crt", stub.root);
    AUTO(free) char *wrong = xasprintf("user admit %s/engine.crt", stub.root);
    AUTO(free) char *certificate = xasprintf("%s/alice.crt", stub.root);
    assert_int_equal(run(init) || run(user) || run(engine), 0);
    assert_int_equal(pki_key_digest(certificate, key, &e), 0);
    AUTO(free) char *body = xasprintf("{\"key\": \"%s\"}", key);
    answer_with(calls);
    assert_int_equal(run(admit), 0);
    assert_asked("POST /v2/users/alice ", body);
    assert_int_equal(run(wrong), error_exit(E_INVALID));
    assert_in(err, "engine-docker");
    assert_int_not_equal(run("user admit /nowhere"), 0);
    static const char *const files[] = { "cluster.crt", "cluster.key", "alice.crt", "alice.key", "engine.crt", "engine.key" };
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        AUTO(free) char *path = xasprintf("%s/%s", stub.root, files[i]);
        assert_int_equal(unlink(path), 0);
    }
}

static void nodes_are_drained(void **state)
{
    static const struct canned busy[] = {
        { "POST", "/v2/nodes/n/drain", 200, "{\"id\": \"" NODE "\", \"volumes\": 2, \"in_use\": 1, \"drain\": {\"problem\": null}}" },
        { "GET", "/v2/nodes/n", 200, "{\"id\": \"" NODE "\", \"volumes\": 0, \"trashed\": 1, \"drain\": {\"problem\": null}}" },
        { "DELETE", "/v2/nodes/n/drain", 200, "{\"id\": \"" NODE "\"}" },
        { 0 },
    };
    static const struct canned stuck[] = {
        { "POST", "/v2/nodes/n/drain", 200, "{\"id\": \"" NODE "\", \"volumes\": 2, \"drain\": {\"problem\": \"nobody\\u009b\"}}" },
        { "GET", "/v2/nodes/n", 200, "{\"id\": \"" NODE "\", \"volumes\": 2}" },
        { 0 },
    };
    (void)state;
    answer_with(busy);
    assert_int_equal(run("node drain n"), 0);
    assert_asked("POST /v2/nodes/n/drain ", "{\"force\": false}");
    assert_int_equal(run("node drain n --wait"), 0);
    assert_string_equal(out, "2 volumes left, 1 of them in use or held\nnode " NODE " takes no volumes any more; 1 volumes in its trash stay\n");
    assert_int_equal(run("node undrain n"), 0);
    assert_string_equal(out, "node " NODE " takes volumes again\n");
    answer_with(stuck);
    assert_int_equal(run("node drain n --force"), 0);
    assert_asked("POST /v2/nodes/n/drain ", "{\"force\": true}");
    assert_in(out, "2 volumes left: nobody\\xc2\\x9b\n");
    assert_int_equal(run("node drain n --wait"), error_exit(E_CONFLICT)); // undrained meanwhile
}

// What became of each volume, and what is not to be had from inventories.
static void recover_says_what_it_does(void **state)
{
    static const char reply[] =
        "{\"nodes\": [{\"id\": \"" NODE "\", \"host\": \"h\", \"volumes\": 5, \"copies\": 1}, {\"id\": \"" OTHER "\", \"host\": \"i\", "
        "\"error\": {\"description\": \"it is away\"}}], \"volumes\": ["
        "{\"id\": \"" ID "\", \"name\": \"db\", \"host\": \"h\", \"state\": \"live\", \"verdict\": \"taken\", "
        "\"kept\": [{\"host\": \"j\", \"what\": \"data\"}, {\"host\": \"k\", \"what\": \"copy\"}]},"
        "{\"id\": \"" ID "\", \"name\": \"web-1\", \"was\": \"web\", \"verdict\": \"taken\"},"
        "{\"id\": \"" ID "\", \"verdict\": \"waits\", \"other\": \"" OTHER "\", \"other_host\": \"\"},"
        "{\"id\": \"" ID "\", \"verdict\": \"copy-only\"}, {\"id\": \"" ID "\", \"verdict\": \"strange\"}]}";
    static const struct canned calls[] = { { "POST", "/v2/recover", 200, reply }, { 0 } };
    (void)state;
    answer_with(calls);
    assert_int_equal(run("control recover --dry-run"), 0);
    assert_asked("POST /v2/recover ", "{\"dry_run\": true, \"force\": false}");
    assert_in(out, "node h (" NODE ") has 5 volumes and 1 copies\nnode i (" OTHER ") could not be asked: it is away\n");
    assert_in(out, "taken in; older data on j is kept, a copy on k is kept\n");
    assert_in(out, "taken in; it was web, a name that another one has\n");
    assert_in(out, "left out: a later state of it may be on " OTHER ", which is not connected");
    assert_in(out, "left out: only a copy");
    assert_in(out, "2 volumes would be taken in; nothing is changed yet\n");
    answer_with(calls);
    assert_int_equal(run("control recover --force"), 0);
    assert_asked("POST /v2/recover ", "{\"dry_run\": false, \"force\": true}");
    assert_in(out, "2 volumes are taken in; holds, containers of API v1, ");
}

// flocker-ca says and names things as tools of the original Flocker's time expect it.
static void the_original_ca(void **state)
{
    char dir[] = "/tmp/test-ca-XXXXXX", here[4096];
    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_non_null(getcwd(here, sizeof here));
    assert_int_equal(chdir(dir), 0);
    assert_int_equal(run_plain("flocker-ca initialize mycluster"), 0);
    assert_int_equal(strncmp(out, "Created cluster.key and cluster.crt.", 36), 0);
    assert_int_equal(run_plain("flocker-ca initialize mycluster"), 1);
    assert_int_equal(strncmp(err, "Error: ", 7), 0);
    assert_int_equal(mkdir("out", 0700), 0);
    assert_int_equal(run_plain("flocker-ca create-control-certificate 192.0.2.1 -i . -o out"), 0);
    assert_int_equal(strncmp(out, "Created control-192.0.2.1.crt and control-192.0.2.1.key", 55), 0);
    assert_int_equal(access("out/control-192.0.2.1.key", F_OK), 0);
    assert_int_equal(run_plain("flocker-ca create-node-certificate --outputpath=out"), 0);
    struct uuid id; // from between the first space and the first dot
    char *word = strchr(out, ' ') + 1, *dot = strchr(out, '.');
    assert_int_equal(strncmp(dot, ".crt. Copy it over to /etc/flocker/node.crt on your node machine", 64), 0);
    *dot = '\0';
    assert_true(uuid_parse(word, &id));
    AUTO(free) char *file = xasprintf("out/%s.crt", word);
    assert_int_equal(access(file, F_OK), 0);
    assert_int_equal(run_plain("flocker-ca create-api-certificate bob"), 0);
    assert_int_equal(strncmp(out, "Created bob.crt. You can now give it to your API enduser", 56), 0);
    static const char *const wrong[] = {
        "flocker-ca create-api-certificate bob", "flocker-ca create-api-certificate ../bob", "flocker-ca create-api-certificate", "flocker-ca",
        "flocker-ca create-node-certificate -i nowhere", "flocker-ca create-node-certificate -o nowhere", "flocker-ca create-api-certificate x -i out",
    };
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        assert_int_equal(run_plain(wrong[i]), 1);
        assert_int_equal(strncmp(err, "Error: ", 7), 0);
    }
    assert_int_equal(run_plain("flocker ca user bob --renew"), 0);
    // A folder with cluster.crt alone is a user's, not the authority's: then /etc/flocker below the root is.
    AUTO(free) char *etc = xasprintf("%s/etc", dir), *own = xasprintf("%s/etc/flocker", dir), *by_root = xasprintf("flocker ca user amy --root %s", dir);
    assert_true(mkdir(etc, 0700) == 0 && mkdir(own, 0700) == 0 && rename("cluster.key", "etc/flocker/cluster.key") == 0);
    assert_true(link("cluster.crt", "etc/flocker/cluster.crt") == 0);
    assert_int_equal(run_plain(by_root), 0);
    assert_int_equal(access("amy.crt", F_OK), 0);
    assert_int_equal(rename("etc/flocker/cluster.key", "cluster.key"), 0);
    assert_int_equal(run_plain("flocker ca user nobody --renew"), error_exit(E_NOT_FOUND));
    assert_int_equal(run_plain("flocker ca node --renew"), error_exit(E_INVALID));
    assert_int_equal(run_plain("flocker ca plugin other.example -o out"), 0);
    assert_int_equal(run_plain("flocker ca engine -o out --json"), 0);
    assert_int_equal(chdir(here), 0);
    assert_int_equal(nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

// Flag, environment, this host's socket, agent.yml: in that order. Who is not reached is named in the error.
static void where_control_is(void **state)
{
    char dir[] = "/tmp/test-where-XXXXXX";
    (void)state;
    assert_non_null(mkdtemp(dir));
    AUTO(free) char *etc = xasprintf("%s/etc/flocker", dir), *yml = xasprintf("%s/agent.yml", dir);
    AUTO(free) char *by_root = xasprintf("flocker node ls --root %s", dir);
    AUTO(free) char *by_path = xasprintf("flocker node ls --root %s --certs-path %s", dir, dir);
    AUTO(free) char *by_flag = xasprintf("flocker node ls --root %s --control-service there.invalid --user eve", dir);
    AUTO(free) char *by_socket = xasprintf("flocker node ls --socket %s/none", dir);
    assert_int_equal(run_plain(by_root), error_exit(E_UNAVAILABLE));
    assert_in(err, "/run/flocker/control.sock");
    FILE *f = fopen(yml, "we");
    fprintf(f, "version: 1\ncontrol-service:\n  hostname: yml.invalid\n");
    assert_int_equal(fclose(f), 0);
    assert_int_equal(run_plain(by_path), error_exit(E_NOT_FOUND)); // no certificates there
    assert_in(err, "yml.invalid");
    assert_in(err, "/cluster.crt");
    setenv("FLOCKER_CONTROL_SERVICE", "env.invalid", 1);
    setenv("FLOCKER_CERTS_PATH", etc, 1);
    assert_int_equal(run_plain(by_root), error_exit(E_NOT_FOUND));
    assert_in(err, "env.invalid");
    assert_int_equal(run_plain(by_flag), error_exit(E_NOT_FOUND));
    assert_in(err, "there.invalid");
    assert_int_equal(run_plain(by_socket), error_exit(E_UNAVAILABLE));
    assert_in(err, "/none");
    assert_int_equal(run_plain("flocker node ls --control-port 70000"), error_exit(E_INVALID));
    unsetenv("FLOCKER_CONTROL_SERVICE");
    unsetenv("FLOCKER_CERTS_PATH");
    assert_int_equal(nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static void pool_is_asked_of_the_agent(void **state)
{
    static const struct canned pool[] = {
        { "GET", "/v2/pool", 200,
          "{\"backend\": \"btrfs\", \"node\": \"" NODE "\", \"size\": 10737418240, \"used\": 1073741824, \"volumes\": 3}" },
        { "POST", "/v2/pool", 200, "{\"size\": 21474836480}" },
        { 0 },
    };
    (void)state;
    answer_with(pool);
    assert_int_equal(run("pool ls"), 0);
    assert_string_equal(out, "NODE                                  BACKEND  SIZE   USED  FREE  VOLUMES\n" NODE
                             "  btrfs    10GiB  1GiB  9GiB  3\n");
    assert_int_equal(run("pool ls --json"), 0);
    AUTO(json_decref) json_t *got = document(out);
    assert_int_equal(json_array_size(got), 1);
    answer_with(pool);
    assert_int_equal(run("pool grow 20G"), 0);
    assert_string_equal(out, "the pool has 20GiB now\n");
    assert_log("POST /v2/pool {\"size\":21474836480}\nGET /v2/pool\n");
    assert_int_equal(run("pool grow big"), error_exit(E_INVALID));
}

#define FILE_MAY "the pool's file may still become 15GiB larger, but the disk below it has only "

static void pools_that_will_fail_are_told(void **state)
{
    static const struct {
        const char *facts;
        const char *of_status, *of_grow; // what they say; NULL: nothing
    } cases[] = {
        { "\"read_only\": false", NULL, NULL },
        { "\"kept\": 2", "  warning: the pool has 2 volumes that are not this node's", "the pool has 2 volumes that are not this node's" },
        { "\"read_only\": true", "  warning: the pool is read-only: ", "the pool is read-only: " },
        { "\"file_may_grow\": 16106127360, \"disk_free\": 16106127360", NULL, NULL },
        { "\"file_may_grow\": 16106127360, \"disk_free\": 10737418240", NULL, FILE_MAY "10GiB free" },
        { "\"file_may_grow\": 16106127360, \"disk_free\": 0", "  warning: " FILE_MAY "0B free", FILE_MAY "0B free" },
        { "\"file_may_grow\": 16106127360, \"disk_free\": \"1\"", NULL, NULL },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        AUTO(free) char *body = xasprintf("{\"size\": 21474836480, %s}", cases[i].facts);
        const struct canned pool[] = { { "GET", "/v2/status", 200, "{}" }, { NULL, "/v2/pool", 200, body }, { 0 } };
        answer_with(pool);
        assert_int_equal(run("status"), 0);
        if (cases[i].of_status)
            assert_in(out, cases[i].of_status);
        else
            assert_null(strstr(out, "warning"));
        assert_int_equal(run("pool grow 20G"), 0);
        if (cases[i].of_grow)
            assert_in(out, cases[i].of_grow);
        else
            assert_string_equal(out, "the pool has 20GiB now\n");
    }
}

static const struct canned well[] = {
    { "GET", "/v2/status", 200,
      "{\"version\": \"2.0.0\", \"nodes\": {\"known\": 2, \"connected\": 1}, \"volumes\": {\"live\": 3, \"trashed\": 4, "
      "\"purging\": 5}}" },
    { "GET", "/v2/pool", 200,
      "{\"backend\": \"btrfs\", \"node\": \"" NODE "\", \"size\": 10737418240, \"used\": 0, \"volumes\": 3}" },
    { 0 },
};

static void status_says_what_is_down(void **state)
{
    (void)state;
    answer_with(well);
    assert_int_equal(run("status"), 0);
    assert_string_equal(
        out, "control: up, version 2.0.0\n  nodes: 2 known, 1 connected\n  volumes: 3 live, 4 in the trash, 5 being purged\n"
             "agent: up\n  pool: btrfs, 0B of 10GiB used, 3 volumes\n");
    static const struct canned deaf[] = {
        { "GET", "/v2/status", 200, "{\"serves_other_hosts\": false, \"nodes\": {\"known\": 2, \"connected\": 1}}" },
        { "GET", "/v2/pool", 200, "{\"volumes\": 1}" },
        { 0 },
    };
    answer_with(deaf);
    assert_int_equal(run("status"), 0);
    assert_in(out, "warning: the other nodes can't reach it: it was started without --agents");
    assert_in(out, " 1 volume\n");
    static const struct canned alone[] = { { "GET", "/v2/pool", 200, "{\"synced\": false}" }, { 0 } };
    answer_with(alone);
    assert_int_equal(run("status"), error_exit(E_NOT_FOUND));
    assert_in(out, "agent: up, but not connected to control\n");
    answer_with(well);
    AUTO(free) char *half = xasprintf("flocker status --json --root /nowhere --socket %s/run/flocker/control.sock", stub.root);
    assert_int_equal(run_plain(half), error_exit(E_UNAVAILABLE));
    assert_string_equal(
        err, "flocker: this host's agent is down: nobody listens at /nowhere/run/flocker/agent.sock: is `flocker up` done, or "
             "`flocker agent` running?\n");
    AUTO(json_decref) json_t *got = document(out);
    json_t *result = json_object_get(got, "result");
    assert_true(json_is_true(json_object_get(json_object_get(result, "control"), "up")));
    assert_true(json_is_false(json_object_get(json_object_get(result, "agent"), "up")));
    assert_int_equal(run_plain("flocker status --root /nowhere"), error_exit(E_UNAVAILABLE));
    assert_in(err, "control and this host's agent are down");
}

static void backup_has_an_absolute_path(void **state)
{
    static const struct canned ok[] = { { "POST", "/v2/backup", 200, "{\"path\": \"/x\"}" }, { 0 } };
    AUTO(free) char *here = getcwd(NULL, 0);
    AUTO(free) char *wanted = xasprintf("{\"path\": \"%s/copy.db\"}", here);
    (void)state;
    answer_with(ok);
    assert_int_equal(run("control backup copy.db"), 0);
    assert_asked("POST /v2/backup ", wanted);
    answer_with(ok);
    assert_int_equal(run("control backup /var/copy.db"), 0);
    assert_asked("POST /v2/backup ", "{\"path\": \"/var/copy.db\"}");
    assert_int_equal(run("control backup ~"), error_exit(E_INVALID));
}

// ---- errors -------------------------------------------------------------------------------------------------------------------

static void api_errors_have_their_exit_status(void **state)
{
    static const struct {
        struct canned reply;
        enum errcode code;
        const char *message;
    } cases[] = {
        { { NULL, NULL, 409, "{\"code\": \"in-use\", \"description\": \"container web uses it\"}" },
          E_BUSY,
          "container web uses it" },
        { { NULL, NULL, 409, "{\"description\": \"taken\"}" }, E_CONFLICT, "taken" },
        { { NULL, NULL, 503, "{\"code\": \"word-of-a-newer-version\", \"description\": \"later\"}" }, E_UNAVAILABLE, "later" },
        { { NULL, NULL, 507, "{}" }, E_NO_SPACE, "HTTP status 507" },
        { { NULL, NULL, 500, "not JSON" }, E_IO, "HTTP status 500" },
        { { NULL, NULL, 412, "[1]" }, E_CONFLICT, "HTTP status 412" },
        { { NULL, NULL, 405, "" }, E_UNSUPPORTED, "HTTP status 405" },
        { { NULL, NULL, 418, "{\"code\": 5, \"description\": \"\"}" }, E_INVALID, "HTTP status 418" },
        { { NULL, NULL, 302, "{}" }, E_IO, "HTTP status 302" },
        { { NULL, NULL, 200, "{\"a\": 1" }, E_IO, "something that is not JSON" },
        { { NULL, NULL, -1, "" }, E_IO, "closed the connection" },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct canned replies[] = { cases[i].reply, { 0 } };
        answer_with(replies);
        assert_int_equal(run("volume inspect db"), error_exit(cases[i].code));
        assert_in(err, cases[i].message);
        assert_int_equal(run("volume ls --json"), error_exit(cases[i].code));
        AUTO(json_decref) json_t *got = document(out);
        const json_t *error = json_object_get(got, "error");
        assert_string_equal(json_string_value(json_object_get(error, "code")), error_word(cases[i].code));
        assert_in(json_string_value(json_object_get(error, "message")), cases[i].message);
        answer_with(NULL);
    }
}

static void messages_are_harmless(void **state)
{
    static const struct canned hostile[] = {
        { NULL, NULL, 404, "{\"description\": \"\\u001b]0;x\\u0007\\nflocker: all is well\"}" }, { 0 }
    };
    (void)state;
    answer_with(hostile);
    assert_int_equal(run("volume inspect db"), error_exit(E_NOT_FOUND));
    assert_string_equal(err, "flocker: \\x1b]0;x\\x07\\x0aflocker: all is well\n");
}

static void nobody_listens(void **state)
{
    (void)state;
    assert_int_equal(run_plain("flocker volume ls --root /nowhere"), error_exit(E_UNAVAILABLE));
    assert_in(err, "/nowhere/run/flocker/control.sock");
    assert_in(err, "is `flocker up` done");
    assert_string_equal(out, "");
    assert_int_equal(run_plain("flocker --socket /nowhere/x volume ls"), error_exit(E_UNAVAILABLE));
    assert_in(err, "/nowhere/x");
}

static void usage_errors(void **state)
{
    static const struct {
        const char *line, *message;
    } cases[] = {
        { "volume", "needs one more word: create, ls, inspect, resize, move, rm, restore" },
        { "volume creat x", "did you mean \"volume create\"?" },
        { "volume list", "did you mean \"volume ls\"?" },
        { "volume delete x", "did you mean \"volume rm\"?" },
        { "creat x", "did you mean \"volume create\"?" },
        { "volme ls", "did you mean \"volume ls\"?" },
        { "sttaus", "did you mean \"status\"?" },
        { "control frobnicate", "`flocker help control` lists them all" },
        { "frobnicate", "`flocker help` lists them all" },
        { "help frobnicate", "`flocker help` lists them all" },
        { "~", "there is no command \"\"" },
        { "volume create", "needs: NAME" },
        { "volume resize db", "needs: VOLUME SIZE" },
        { "volume resize db 5G x", "takes only VOLUME SIZE: what is \"x\"?" },
        { "volume ls x", "takes no arguments: what is \"x\"?" },
        { "volume ls --size 5", "there is no option --size here" },
        { "--size volume ls", "there is no option --size here" },
        { "volume ls -x", "there is no option -x here" },
        { "-x", "there is no option -x here" },
        { "volume ls --all=yes", "--all takes no argument" },
        { "volume create db --size", "--size needs an argument: SIZE" },
        { "volume create db -s", "--size needs an argument: SIZE" },
        { "volume create db --size big", "size 'big' is not a size" },
        { "volume create db --uid -1", "--uid -1: not a number" },
        { "volume create db --uid 4294967295", "--uid 4294967295: not a number" },
        { "volume create db --gid ~", "--gid : not a number" },
        { "volume create db --mode 888", "--mode 888: not an octal number" },
        { "volume create db --mode 10000", "--mode 10000: not an octal number" },
        { "volume create db --metadata x", "write it as KEY=VALUE" },
        { "volume create -- -x", "name" },
        { "volume create ~", "must not be empty" },
        { "completion tcsh", "bash, zsh and fish" },
    };
    (void)state;
    answer_with(NULL);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        AUTO(free) char *json = xasprintf("--json %s", cases[i].line);
        assert_int_equal(run(cases[i].line), 2);
        assert_int_equal(strncmp(err, "flocker: ", 9), 0);
        assert_in(err, cases[i].message);
        assert_string_equal(out, "");
        assert_int_equal(run(json), 2);
        AUTO(json_decref) json_t *got = document(out);
        assert_string_equal(json_string_value(json_object_get(json_object_get(got, "error"), "code")), "invalid");
    }
    assert_int_equal(run("volume ls --nonsense --json"), 2); // read too late to have been seen
    json_decref(document(out));
    assert_log("");
}

static void options_stand_anywhere(void **state)
{
    static const char *const lines[] = { "--json volume ls -a", "volume --json ls -a", "volume ls --json --all",
                                         "-- volume ls --all --json", "volume ls --al --js" };
    (void)state;
    answer_with(volumes);
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        assert_int_equal(run(lines[i]), 0);
        assert_int_equal(out[0], '[');
    }
    assert_int_equal(run("volume inspect -- --json"), error_exit(E_NOT_FOUND));
    assert_string_equal(out, "");
}

static void full_disks_are_told(void **state)
{
    char flocker[] = "flocker", version[] = "version";
    char *argv[] = { flocker, version, NULL };
    (void)state;
    FILE *full = fopen("/dev/full", "w"), *sink = fopen("/dev/null", "w");
    assert_non_null(full);
    assert_non_null(sink);
    assert_int_equal(cli_run(2, argv, NULL, full, sink), error_exit(E_NO_SPACE));
    fclose(full);
    fclose(sink);
}

// ---- all commands -------------------------------------------------------------------------------------------------------------

static int run_role(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    AUTO(free) char *path = cli_path(ctx, "/var/lib/flocker");
    (void)e;
    fprintf(ctx->out, "role %s %d %s %s\n", path, argc, argc ? argv[0] : "-", cli_value(ctx, "host"));
    return 0;
}

static const struct cli_option role_options[] = { { "host", 'H', "ADDRESS", "Where others reach this node." }, { NULL } };
static const struct cli_command role_table[] = {
    { .name = "control",
      .args = "",
      .summary = "run the control service",
      .text = "    flocker control",
      .options = role_options,
      .run = run_role,
      .program = "flocker-control" },
    { .name = "up",
      .args = "[NAME]",
      .summary = "start control and agent",
      .text = "Both.",
      .options = role_options,
      .run = run_role },
    { .name = "worker", .args = "VERB", .summary = "do one thing", .text = "", .run = run_role, .hidden = true },
    { NULL },
};

static void assert_fits(const char *text)
{
    assert_true(*text);
    for (const char *line = text; *line; line += strcspn(line, "\n") + 1) {
        AUTO(free) char *copy = xstrndup(line, strcspn(line, "\n"));
        if (text_width(copy) > 100)
            print_error("wider than 100 columns: %s\n", copy);
        assert_true(text_width(copy) <= 100);
        assert_true(!*copy || copy[strlen(copy) - 1] != ' ');
    }
}

static void every_command_has_help(void **state)
{
    (void)state;
    roles = role_table;
    AUTO(free) const struct cli_command **list = command_list(roles, false);
    for (size_t i = 0; list[i]; i++) {
        const struct cli_command *c = list[i];
        AUTO(free) char *first = xasprintf("help %s", c->name);
        AUTO(free) char *second = xasprintf("%s --help", c->name);
        AUTO(free) char *usage = xasprintf("Usage: flocker %s", c->name);
        assert_int_equal(run(first), 0);
        assert_int_equal(strncmp(out, usage, strlen(usage)), 0);
        assert_fits(out);
        for (const struct cli_option *o = c->options; o && o->name; o++) {
            assert_in(out, o->name);
            assert_int_equal(o->help[strlen(o->help) - 1], '.');
        }
        AUTO(free) char *same = xstrdup(out);
        assert_int_equal(run(second), 0);
        assert_string_equal(out, same);
        assert_true(c->summary[strlen(c->summary) - 1] != '.');
        assert_int_equal(run("help"), 0);
        assert_in(out, c->name);
        assert_fits(out);
    }
    static const char *const others[] = { "help volume", "volume --help", "volume help", "--help" };
    for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
        assert_int_equal(run(others[i]), 0);
        assert_in(out, "volume create NAME");
        assert_fits(out);
    }
    assert_int_equal(run_plain("flocker"), 0);
    assert_int_equal(run_plain("flocker --version"), 0);
    assert_string_equal(out, "flocker " FLOCKER_VERSION "\n");
    roles = NULL;
}

static void roles_are_commands(void **state)
{
    (void)state;
    roles = role_table;
    assert_int_equal(run_plain("flocker --root /r control -H 1.2.3.4"), 0);
    assert_string_equal(out, "role /r/var/lib/flocker 0 - 1.2.3.4\n");
    assert_int_equal(run_plain("flocker-control --host=h"), 0);
    assert_string_equal(out, "role /var/lib/flocker 0 - h\n");
    assert_int_equal(run_plain("flocker up x --host h --json"), 0);
    AUTO(json_decref) json_t *got = document(out);
    assert_string_equal(json_string_value(json_object_get(got, "text")), "role /var/lib/flocker 1 x h\n");
    assert_int_equal(run_plain("flocker control bakup x"), 2);
    assert_in(err, "did you mean \"control backup\"?");
    assert_int_equal(run_plain("flocker help control"), 0);
    assert_in(out, "--host");
    assert_in(out, "control backup FILE");
    assert_int_equal(run_plain("flocker help"), 0);
    assert_null(strstr(out, "worker"));
    roles = NULL;
}

// Whatever a server says, there is one document, and nothing falls over.
static void every_command_speaks_json(void **state)
{
    static const char *const bodies[] = {
        "{}",
        "[]",
        "null",
        "5",
        "\"x\"",
        "",
        "[{}]",
        "[null, 5, []]",
        "{\"name\": 5, \"id\": null, \"size\": -1, \"state\": [], \"options\": 7, \"error\": 3}",
        "{\"size\": 0.5, \"state\": \"trashed\", \"purge\": \"soon\", \"metadata\": {\"a\": 1}}",
        "[{\"name\": 5, \"size\": \"1\", \"error\": {}, \"created\": \"2026-01-02T03:04:05\"}]",
        "{\"error\": {\"code\": 1}, \"state\": \"trashed\"}",
    };
    (void)state;
    AUTO(free) const struct cli_command **list = command_list(NULL, false);
    for (size_t i = 0; list[i]; i++)
        for (size_t b = 0; b < ARRAY_SIZE(bodies); b++) {
            if (command_is_in(list[i], "ca", false) || strcmp(list[i]->name, "diagnostics") == 0)
                continue; // one asks nobody, the other the whole host
            const struct canned replies[] = { { NULL, NULL, 200, bodies[b] }, { 0 } };
            bool purges = strcmp(list[i]->name, "volume rm") == 0 && b % 2;
            const char *arguments = !*list[i]->args || *list[i]->args == '[' ? "" : strchr(list[i]->args, ' ') ? " 5G 5G" : " 5G";
            AUTO(free) char *line = xasprintf("%s%s%s", list[i]->name, arguments, purges ? " --purge" : "");
            AUTO(free) char *json = xasprintf("%s --json", line);
            answer_with(replies);
            int status = run(line);
            assert_int_equal(run(json), status);
            AUTO(json_decref) json_t *got = document(out);
            assert_int_equal(json_object_get(got, "error") != NULL && json_object_get(json_object_get(got, "error"), "message"),
                             status != 0);
            answer_with(NULL);
        }
}

// ---- manual and completion ----------------------------------------------------------------------------------------------------

static void every_command_is_in_the_manual(void **state)
{
    (void)state;
    roles = role_table;
    AUTO(free) const struct cli_command **list = command_list(roles, false);
    for (size_t i = 0; list[i]; i++) {
        AUTO(free) char *line = xasprintf("help --man %.*s", (int)command_first_word(list[i]), list[i]->name);
        AUTO(free) char *heading = xasprintf(".SS \\fBflocker %s\\fR", list[i]->name);
        assert_int_equal(run(line), 0);
        assert_in(out, heading);
        assert_in(out, "\n.SH NAME\nflocker\\-");
        assert_int_equal(run("help --man"), 0);
        assert_in(out, heading);
    }
    assert_in(out, "\\fB9\\fR (unavailable)\n");
    assert_in(out, "flocker\\-volume (1)");
    assert_int_equal(run("help --man volume create"), 2);
    roles = NULL;
}

static void write_script(const char *text)
{
    AUTO(free) char *path = xasprintf("%s/script", stub.root);
    AUTO(fclose) FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
}

// Runs bash's completion of the words; returns what it offers, parted by newlines. The program is replaced by a function.
static char *complete(const char *words)
{
    static const char driver[] =
        "flocker() { case \"$*\" in *'volume ls --all --quiet') printf '%s\\n' db web.1 'x y' '$(touch /tmp/x)' '-r' \"$*\";;\n"
        "'node ls --quiet') echo " NODE ";; esac; }\n"
        ". \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _flocker; printf '%s\\n' \"${COMPREPLY[@]}\"\n";
    AUTO(free) char *script = xasprintf("%s/script", stub.root);
    AUTO(free) char *copy = xstrdup(words);
    const char *argv[24] = { "bash", "--norc", "-c", driver, "bash", script };
    size_t n = 6, got = 0, size = 16384;
    char *at = copy, *ret = xcalloc(size, 1);
    while (at)
        argv[n++] = strsep(&at, " ");
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fds[1], STDOUT_FILENO);
        execv("/bin/bash", (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    close(fds[1]);
    for (ssize_t m; got + 1 < size && (m = read(fds[0], ret + got, size - got - 1)) > 0;)
        got += (size_t)m;
    close(fds[0]);
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return ret;
}

static void assert_completes(const char *words, const char *wanted)
{
    AUTO(free) char *got = complete(words);
    if (strcmp(got, wanted) != 0)
        print_error("completion of '%s': %s\n", words, got);
    assert_string_equal(got, wanted);
}

static void bash_completes(void **state)
{
    (void)state;
    if (access("/bin/bash", X_OK) != 0)
        skip();
    roles = role_table;
    assert_int_equal(run("completion bash"), 0);
    write_script(out);
    roles = NULL;
    assert_completes("flocker ", "volume\nnode\nuser\nca\npool\nstatus\ncontrol\nup\ndiagnostics\nhelp\ncompletion\nversion\n");
    assert_completes("flocker volume ", "create\nls\ninspect\nresize\nmove\nrm\nrestore\n");
    assert_completes("flocker volume r", "resize\nrm\nrestore\n");
    assert_completes("flocker control ", "backup\nrecover\n");
    assert_completes("flocker control --h", "--host\n--help\n");
    assert_completes("flocker volume create --n", "--nocow\n--node\n");
    assert_completes("flocker volume create ", "\n");
    assert_completes("flocker volume create --node ", NODE "\n");
    assert_completes("flocker volume create --node = 7d", NODE "\n");
    assert_completes("flocker volume rm ", "db\nweb.1\n"); // only words that mean nothing to a shell
    assert_completes("flocker volume rm db --purge w", "web.1\n");
    assert_completes("flocker volume resize ", "db\nweb.1\n");
    assert_completes("flocker volume resize db ", "\n");
    assert_completes("flocker --root = /x --json volume inspect db d", "db\n");
    assert_completes("flocker help ", "volume\nnode\nuser\nca\npool\nstatus\ncontrol\nup\ndiagnostics\nhelp\ncompletion\nversion\n");
    assert_completes("flocker help volume cr", "create\n");
    assert_completes("flocker help -", "--json\n--root\n--control-service\n--control-port\n--certs-path\n--user\n--socket\n--help\n--version\n--man\n");
    assert_completes("flocker completion z", "zsh\n");
    assert_completes("flocker control backup /etc/os-rel", "/etc/os-release\n");
    assert_completes("flocker --root /et", "/etc\n");
}

static void every_command_is_completed(void **state)
{
    static const char *const shells[] = { "bash", "zsh", "fish" };
    (void)state;
    roles = role_table;
    AUTO(free) const struct cli_command **list = command_list(roles, false);
    for (size_t s = 0; s < ARRAY_SIZE(shells); s++) {
        AUTO(free) char *line = xasprintf("completion %s", shells[s]);
        assert_int_equal(run(line), 0);
        assert_null(strstr(out, "worker"));
        for (size_t i = 0; list[i]; i++) {
            AUTO(free) char *quoted = xasprintf("'%s'", list[i]->name);
            assert_in(out, quoted);
            for (const struct cli_option *o = list[i]->options; o && o->name; o++) {
                AUTO(free) char *option = xasprintf(s == 2 ? " -l %s" : " --%s", o->name);
                assert_in(out, option);
            }
        }
    }
    roles = NULL;
}

// ---- text ---------------------------------------------------------------------------------------------------------------------

static void text_is_escaped(void **state)
{
    static const struct {
        const char *from, *to;
    } cases[] = {
        { "", "" },
        { "plain \\ text", "plain \\ text" },
        { "\x7f\t", "\\x7f\\x09" },
        { "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80" },
        { "\xc2\x9b,", "\\xc2\\x9b," },
        { "\xc3", "\\xc3" },
        { "\xed\xa0\x80", "\\xed\\xa0\\x80" },
        { "\xc0\xaf\xf4\x90\x80\x80", "\\xc0\\xaf\\xf4\\x90\\x80\\x80" },
        { "\xe2\x81\xa6\xe2\x80\x8f\xd8\x9c", "\\xe2\\x81\\xa6\\xe2\\x80\\x8f\\xd8\\x9c" },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        AUTO(free) char *got = text_escape(cases[i].from);
        assert_string_equal(got, cases[i].to);
        AUTO(json_decref) json_t *json = text_to_json(cases[i].from);
        assert_true(json_is_string(json));
    }
}

static void times_and_ages(void **state)
{
    char text[AGE_SIZE];
    (void)state;
    assert_int_equal(text_to_ms("1970-01-02T00:00:01.500Z"), 86401000);
    assert_int_equal(text_to_ms("1970-01-02"), -1);
    assert_int_equal(text_to_ms("x"), -1);
    assert_int_equal(text_to_ms(NULL), -1);
    assert_string_equal(text_age(-5, text), "0s");
    assert_string_equal(text_age(59999, text), "59s");
    assert_string_equal(text_age(60000, text), "1m");
    assert_string_equal(text_age(7200000, text), "2h");
    assert_string_equal(text_age(86400000LL * 400, text), "400d");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(volumes_are_a_table),
        cmocka_unit_test(volumes_are_json),
        cmocka_unit_test(volumes_come_in_pages),
        cmocka_unit_test(create_sends_every_option),
        cmocka_unit_test(what_the_node_could_not_do_is_a_failure), cmocka_unit_test(users_are_revoked),
        cmocka_unit_test(names_are_encoded),
        cmocka_unit_test(inspect_shows_all),
        cmocka_unit_test(resize_takes_none),
        cmocka_unit_test(moves_name_the_host),
        cmocka_unit_test(removed_volumes_can_come_back),
        cmocka_unit_test(purge_goes_through_the_trash),
        cmocka_unit_test(nodes_and_eras),
        cmocka_unit_test(nodes_come_and_go),
        cmocka_unit_test(nodes_are_drained),
        cmocka_unit_test(recover_says_what_it_does),
        cmocka_unit_test(the_original_ca),
        cmocka_unit_test(where_control_is),
        cmocka_unit_test(pool_is_asked_of_the_agent),
        cmocka_unit_test(pools_that_will_fail_are_told),
        cmocka_unit_test(status_says_what_is_down),
        cmocka_unit_test(backup_has_an_absolute_path),
        cmocka_unit_test(api_errors_have_their_exit_status),
        cmocka_unit_test(messages_are_harmless),
        cmocka_unit_test(nobody_listens),
        cmocka_unit_test(usage_errors),
        cmocka_unit_test(options_stand_anywhere),
        cmocka_unit_test(full_disks_are_told),
        cmocka_unit_test(every_command_has_help),
        cmocka_unit_test(roles_are_commands),
        cmocka_unit_test(every_command_speaks_json),
        cmocka_unit_test(every_command_is_in_the_manual),
        cmocka_unit_test(bash_completes),
        cmocka_unit_test(every_command_is_completed),
        cmocka_unit_test(text_is_escaped),
        cmocka_unit_test(times_and_ages),
    };
    int failed = cmocka_run_group_tests(tests, start_stub, stop_stub);
    free(out);
    free(err);
    return failed;
}
