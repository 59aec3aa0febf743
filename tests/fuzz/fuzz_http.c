// Both HTTP parsers and percent decoding, over any bytes. Besides not crashing, what the parser accepts must keep its promises.
#include "fuzz.h"

#include "base/error.h"
#include "base/mem.h"
#include "net/http.h"
#include "net/net_internal.h"

#include <string.h>

// A text that the parser handed out lies in the head and ends there.
static void check_text(const char *text, const char *head, size_t n)
{
    ASSERT(text >= head && text < head + n && text + strlen(text) < head + n);
}

static void check_message(const struct http_message *m, const char *head, size_t n)
{
    ASSERT(m->header_count <= HTTP_HEADERS_MAX);
    ASSERT(m->minor_version == 0 || m->minor_version == 1);
    ASSERT(m->has_length || m->content_length == 0);
    for (size_t i = 0; i < m->header_count; i++) {
        const char *name = m->headers[i].name, *value = m->headers[i].value;
        check_text(name, head, n);
        check_text(value, head, n);
        ASSERT(*name && !strpbrk(name, " \t\r\n:") && !strpbrk(value, "\r\n"));
        ASSERT(!*value || (!strchr(" \t", *value) && !strchr(" \t", value[strlen(value) - 1])));
        ASSERT(http_header_get(m, name));
    }
}

static void try_parser(int (*parse)(char *, size_t, struct http_message *, struct error *), bool is_request, const uint8_t *data, size_t size)
{
    struct error e = ERROR_INIT;
    struct http_message m = { 0 };
    AUTO(free) char *head = xcalloc(1, size + 1);
    memcpy(head, data, size);
    int rc = parse(head, size, &m, &e);
    if (rc < 0) {
        ASSERT(rc == -E_INVALID || rc == -E_TOO_LARGE || rc == -E_UNSUPPORTED);
        // The server puts the message into JSON as it is.
        ASSERT(e.msg[0] && !strpbrk(e.msg, "\"\\\n"));
        return;
    }
    check_message(&m, head, size);
    if (is_request) {
        check_text(m.method, head, size);
        check_text(m.target, head, size);
        ASSERT(*m.method && m.target[0] == '/' && !strpbrk(m.target, " \r\n#"));
        http_percent_decode(head + (m.target - head));
    } else {
        ASSERT(m.status >= 100 && m.status <= 999);
    }
}

static void try_decode(const uint8_t *data, size_t size)
{
    AUTO(free) char *text = xcalloc(1, size + 1);
    memcpy(text, data, size);
    size_t before = strlen(text);
    if (http_percent_decode(text))
        ASSERT(strlen(text) <= before);
}

static void try_chunks(const uint8_t *data, size_t size)
{
    struct error e = ERROR_INIT;
    size_t n = 0;
    AUTO(free) char *text = xcalloc(1, size ? size : 1); // no byte more: a sanitizer sees one that is read too far
    memcpy(text, data, size);
    if (http_join_chunks(text, size, &n, &e) == 0)
        ASSERT(n < size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t n = http_head_length((const char *)data, size);
    ASSERT(n <= size);
    try_parser(http_parse_request, true, data, size);
    try_parser(http_parse_reply, false, data, size);
    if (n && n < size) { // as the server and the client do
        try_parser(http_parse_request, true, data, n);
        try_parser(http_parse_reply, false, data, n);
    }
    try_decode(data, size);
    try_chunks(data, size);
    return 0;
}
