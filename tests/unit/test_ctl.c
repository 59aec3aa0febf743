// What flockerctl, flocker-deploy and the diagnostics are made of: YAML as JSON, and text without secrets.
#include "test.h"

#include "base/mem.h"
#include "cli/redact.h"
#include "cli/yaml.h"

#include <string.h>

static void assert_yaml(const char *yaml, const char *want)
{
    struct error e = ERROR_INIT;
    json_t *have = NULL, *expected = json_loads(want, JSON_DECODE_ANY, NULL);
    if (yaml_parse("file.yml", yaml, strlen(yaml), &have, &e) < 0)
        fail_msg("%s: %s", yaml, e.msg);
    AUTO(free) char *text = json_dumps(have, JSON_ENCODE_ANY);
    if (!json_equal(have, expected))
        fail_msg("%s became %s", yaml, text);
    json_decref(have);
    json_decref(expected);
}

static void yaml_becomes_json(void **state)
{
    (void)state;
    assert_yaml("a: 1\nb: [x, 'true', \"2\", true, ~, -7]\nc: {d: {e: }}\n", "{\"a\": 1, \"b\": [\"x\", \"true\", \"2\", true, null, -7], \"c\": {\"d\": {\"e\": null}}}");
    assert_yaml("- 80:8080\n- 1.5\n- 12345678901234567890\n- |\n  two\n  lines\n", "[\"80:8080\", \"1.5\", \"12345678901234567890\", \"two\\nlines\\n\"]");
    assert_yaml("---\nword\n...\n", "\"word\"");
}

static void bad_yaml_is_refused_with_its_line(void **state)
{
    static const struct {
        const char *yaml, *words;
    } bad[] = {
        { "", "empty" }, { "a: [", "line" }, { "a: &x 1\n", "line 1" }, { "a: &x [1]\nb: *x\n", "line 1" }, { "a: 1\nb: !!int 2\n", "line 2" },
        { "a: 1\na: 2\n", "line 2" }, { "[a]: 1\n", "line 1" }, { "a: 1\n---\nb: 2\n", "second document" }, { "a: \"\\0\"\n", "NUL" },
        { "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]", "too deep" }, { "a: \xff\n", "line" },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct error e = ERROR_INIT;
        json_t *have = NULL;
        if (yaml_parse("file.yml", bad[i].yaml, strlen(bad[i].yaml), &have, &e) != -E_INVALID || !strstr(e.msg, bad[i].words) || !strstr(e.msg, "file.yml"))
            fail_msg("%s: %s", bad[i].yaml, e.msg);
        assert_null(have);
    }
    struct error e = ERROR_INIT;
    json_t *have = NULL;
    assert_int_equal(yaml_read_file("/nonexistent.yml", &have, &e), -E_NOT_FOUND);
}

static void secrets_are_left_out(void **state)
{
    static const struct {
        const char *text, *want;
    } cases[] = {
        { "", "" },
        { "plain text, volume 5f0dfb6c-9c8e-4c3d-8b42-7ae0b1c2d3e4\n", "plain text, volume 5f0dfb6c-9c8e-4c3d-8b42-7ae0b1c2d3e4\n" },
        { "password=abc def\nnext\n", "password=[left out]\nnext\n" },
        { "DB_PASSWORD: abc\n", "DB_PASSWORD: [left out]\n" },
        { "{\"client_secret\": \"a\\b\", \"x\": 1}", "{\"client_secret\": [left out], \"x\": 1}" },
        { "join --token T1.abc\n", "join --token [left out]\n" },
        { "Authorization: Bearer x y\nz", "Authorization: [left out]\nz" },
        { "https://user:pass@host/path", "https://[left out]@host/path" },
        { "https://host/a@b", "https://host/a@b" },
        { "-----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY-----\nafter", "[left out]\nafter" },
        { "-----BEGIN PRIVATE KEY-----\nMHc\n", "[left out]" },
        { "-----BEGIN CERTIFICATE-----\nMII\n", "-----BEGIN CERTIFICATE-----\nMII\n" },
        { "no token", "no token" },
        { "password=", "password=" },
        { "token 'abc", "token [left out]" },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        AUTO(free) char *have = redact(cases[i].text);
        assert_string_equal(have, cases[i].want);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(yaml_becomes_json),
        cmocka_unit_test(bad_yaml_is_refused_with_its_line),
        cmocka_unit_test(secrets_are_left_out),
    };
    return RUN_TESTS(tests);
}
