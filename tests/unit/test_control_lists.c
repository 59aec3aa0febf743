// Long lists of control's REST API: pages, and those that clients read slowly while things change.
#include "control_rig.h"

struct list {
    json_t *items;
    char next[128]; // target of the next page; ""
};

static struct list get_list(const struct rig *r, const char *target)
{
    struct error e = ERROR_INIT;
    struct list list = { .next = "" };
    struct http_result result = { 0 };
    const struct http_call c = { .unix_path = r->api, .method = "GET", .target = target, .timeout_ms = 30000 };
    if (http_call(&c, &result, &e) < 0)
        fail_msg("%s: %s", target, e.msg);
    assert_int_equal(result.status, 200);
    assert_int_equal(json_read(result.body, result.body_n, &list.items, &e), 0);
    const char *link = http_header_get(&result.message, "Link");
    if (link)
        assert_int_equal(sscanf(link, "<%127[^>]>; rel=\"next\"", list.next), 1);
    http_result_done(&result);
    return list;
}

static void make_many(const struct rig *r, int n)
{
    for (int i = 0; i < n; i++)
        assert_int_equal(call(r, "POST", "/v2/volumes", "{\"owner\": \"" NODE "\"}", NULL), 201);
}

// How often each id is in the list.
static json_t *count_ids(const json_t *list, const char *member)
{
    json_t *counts = json_object();
    size_t i;
    const json_t *item;
    json_array_foreach (list, i, item) {
        const char *id = json_string_value(json_object_get(item, member));
        json_object_set_new(counts, id, json_integer(1 + json_integer_value(json_object_get(counts, id))));
    }
    return counts;
}

// Pages are in order, as long as asked for, without what is filtered; and together all, also if the last of a page is gone meanwhile.
static void test_pages(void **state)
{
    enum { MANY = 25 };
    struct rig r = { "" };
    (void)state;
    start(&r, &store_memory, 1000);
    make_many(&r, MANY);
    struct list whole = get_list(&r, "/v1/configuration/datasets");
    assert_int_equal(json_array_size(whole.items), MANY);
    for (size_t i = 0; i < MANY; i += 5)
        discard(&r, json_string_value(json_object_get(json_array_get(whole.items, i), "dataset_id")));
    for (int all = 0; all < 2; all++) {
        json_t *seen = json_array();
        char target[128];
        int pages = 0;
        snprintf(target, sizeof target, "/v2/volumes?limit=4%s", all ? "&all=1" : "");
        for (; target[0]; pages++) {
            struct list page = get_list(&r, target);
            json_array_extend(seen, page.items);
            assert_int_equal(json_array_size(page.items), page.next[0] || !all ? 4 : MANY % 4);
            memcpy(target, page.next, sizeof page.next);
            json_decref(page.items);
        }
        json_t *counts = count_ids(seen, "id");
        assert_int_equal(json_object_size(counts), all ? MANY : 20);
        assert_int_equal(json_array_size(seen), all ? MANY : 20);
        assert_int_equal(pages, all ? 7 : 5); // none is empty
        json_decref(counts);
        json_decref(seen);
    }
    static const char *const bad[] = { "limit=0", "limit=x", "limit=", "limit=-1", "after=x", "after=" };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        AUTO(free) char *target = xasprintf("/v2/volumes?%s", bad[i]);
        assert_int_equal(call(&r, "GET", target, NULL, NULL), 400);
    }
    struct list most = get_list(&r, "/v2/volumes?limit=99999999999999999999&after=ffffffff-ffff-ffff-ffff-ffffffffffff");
    assert_int_equal(json_array_size(most.items), 0);
    json_decref(most.items);
    json_decref(whole.items);
    stop(&r);
}

static int ask_for_list(const struct rig *r, const char *target)
{
    struct error e = ERROR_INIT;
    int fd = socket_connect_unix(r->api, 5000, &e);
    AUTO(free) char *request = xasprintf("GET %s HTTP/1.0\r\n\r\n", target);
    assert_true(fd >= 0);
    assert_int_equal(send(fd, request, strlen(request), 0), strlen(request));
    return fd;
}

// The body, as far as the first bytes or all of it.
static void read_more(int fd, char **text, size_t *n, size_t limit)
{
    *text = xrealloc(*text, *n + limit + 1, 1);
    for (ssize_t got = 1; got > 0 && limit > 0; limit -= (size_t)got) {
        got = recv(fd, *text + *n, limit, 0);
        assert_true(got >= 0);
        *n += (size_t)got;
    }
    (*text)[*n] = '\0';
}

// Who is slow to read a long list holds up nobody. What comes meanwhile may be in it; what was there is, once.
static void test_long_list_while_things_change(void **state)
{
    enum { MANY = 4000, MORE = 500 };
    struct rig r = { "" };
    (void)state;
    start(&r, &store_memory, 1000);
    make_many(&r, MANY);
    struct list before = get_list(&r, "/v1/configuration/datasets");
    int gone = ask_for_list(&r, "/v1/configuration/datasets"), never = ask_for_list(&r, "/v1/configuration/datasets");
    AUTO(close) int fd = ask_for_list(&r, "/v1/configuration/datasets");
    char *text = NULL;
    size_t n = 0;
    read_more(fd, &text, &n, 1000);
    close(gone);
    make_many(&r, MORE);
    assert_int_equal(call(&r, "GET", "/v1/version", NULL, NULL), 200);
    read_more(fd, &text, &n, (MANY + MORE) * 400);
    json_t *list = json_loads(strstr(text, "\r\n\r\n") + 4, 0, NULL);
    json_t *counts = count_ids(list, "dataset_id"), *wanted = count_ids(before.items, "dataset_id");
    const char *id;
    json_t *count;
    assert_int_equal(json_object_size(counts), json_array_size(list));
    json_object_foreach (wanted, id, count)
        assert_int_equal(json_integer_value(json_object_get(counts, id)), 1);
    assert_in_range(json_array_size(list), MANY + 1, MANY + MORE);
    free(text);
    json_decref(list);
    json_decref(counts);
    json_decref(wanted);
    json_decref(before.items);
    stop(&r); // amid the list that nobody reads
    close(never);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_long_list_while_things_change),
    };
    return RUN_TESTS(tests);
}
