// The HTTP parser: bytes in, struct http_message out, nothing else. Strict where leniency has let requests be smuggled (bare line feeds,
// folded headers, blanks before a colon, lengths that contradict each other), lenient where real engines are odd (an empty Host).
#include "net/http.h"

#include "net/net_internal.h"

#include <string.h>
#include <strings.h>

enum char_class { CHAR_TOKEN = 1, CHAR_TARGET = 2, CHAR_VALUE = 4 };

static unsigned classes(unsigned char c)
{
    if (c >= 0x80)
        return CHAR_VALUE;
    if (c == ' ' || c == '\t')
        return CHAR_VALUE;
    if (c < 0x20 || c == 0x7f)
        return 0;
    bool word = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || strchr("!#$%&'*+-.^_`|~", c);
    return CHAR_VALUE | (c != '#' ? (unsigned)CHAR_TARGET : 0) | (word ? (unsigned)CHAR_TOKEN : 0);
}

static bool is_all(const char *text, unsigned class)
{
    for (; *text; text++)
        if (!(classes((unsigned char)*text) & class))
            return false;
    return true;
}

size_t http_head_length(const char *text, size_t n)
{
    for (const char *at = text; (at = memchr(at, '\n', n - (size_t)(at - text)));) {
        at++;
        size_t left = n - (size_t)(at - text);
        if (left >= 1 && at[0] == '\n')
            return (size_t)(at - text) + 1;
        if (left >= 2 && at[0] == '\r' && at[1] == '\n')
            return (size_t)(at - text) + 2;
    }
    return 0;
}

bool http_has_token(const char *value, const char *token)
{
    size_t n = strlen(token);
    while (*value) {
        value += strspn(value, ", \t");
        size_t word = strcspn(value, ", \t");
        if (word == n && strncasecmp(value, token, n) == 0)
            return true;
        value += word;
    }
    return false;
}

// Cuts the next line off [*at, end): NUL in place of its CR LF. NULL if it does not end so, or holds a NUL or another CR.
static char *take_line(char **at, char *end)
{
    char *line = *at, *feed = memchr(line, '\n', (size_t)(end - line));
    if (!feed || feed == line || feed[-1] != '\r')
        return NULL;
    feed[-1] = 0;
    size_t n = (size_t)(feed - 1 - line);
    if (strlen(line) != n || memchr(line, '\r', n))
        return NULL;
    *at = feed + 1;
    return line;
}

static bool read_version(const char *text, struct http_message *m)
{
    if (strncmp(text, "HTTP/1.", 7) != 0 || (text[7] != '0' && text[7] != '1'))
        return false;
    m->minor_version = text[7] - '0';
    return true;
}

// METHOD SP TARGET SP VERSION
static int read_request_line(char *line, struct http_message *m, struct error *e)
{
    char *target = strchr(line, ' ');
    char *version = target ? strchr(target + 1, ' ') : NULL;
    if (!version)
        return fail(e, E_INVALID, "The request line is not METHOD TARGET VERSION.");
    *target++ = 0;
    *version++ = 0;
    if (!*line || !is_all(line, CHAR_TOKEN))
        return fail(e, E_INVALID, "The method holds a character that no method may hold.");
    if (*target != '/' || !is_all(target, CHAR_TARGET))
        return fail(e, E_INVALID, "The target must be a path that starts with a slash, with special characters as %%XX.");
    if (!read_version(version, m) || version[8])
        return fail(e, E_INVALID, "The version must be HTTP/1.1 or HTTP/1.0.");
    m->method = line;
    m->target = target;
    return 0;
}

// VERSION SP STATUS [SP REASON]
static int read_status_line(const char *line, struct http_message *m, struct error *e)
{
    if (!read_version(line, m) || line[8] != ' ' || strspn(line + 9, "0123456789") != 3 || (line[12] && line[12] != ' ') ||
        line[9] == '0' || !is_all(line, CHAR_VALUE))
        return fail(e, E_INVALID, "The reply does not start with an HTTP/1 status line.");
    m->status = (line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0');
    return 0;
}

static int read_header(char *line, struct http_message *m, struct error *e)
{
    if (*line == ' ' || *line == '\t')
        return fail(e, E_INVALID, "A header is folded over two lines.");
    char *value = strchr(line, ':');
    if (!value || value == line)
        return fail(e, E_INVALID, "A header is not NAME: VALUE.");
    *value++ = 0;
    if (!is_all(line, CHAR_TOKEN))
        return fail(e, E_INVALID, "The name of a header holds a character that none may hold (perhaps a blank before the colon).");
    value += strspn(value, " \t");
    size_t n = strlen(value);
    while (n && (value[n - 1] == ' ' || value[n - 1] == '\t'))
        n--;
    value[n] = 0;
    if (!is_all(value, CHAR_VALUE))
        return fail(e, E_INVALID, "The value of a header holds a control character.");
    if (m->header_count == HTTP_HEADERS_MAX)
        return fail(e, E_TOO_LARGE, "There are more than %d headers.", HTTP_HEADERS_MAX);
    m->headers[m->header_count++] = (struct http_header){ line, value };
    return 0;
}

static int note_content_length(struct http_message *m, const char *value, struct error *e)
{
    size_t n = 0;
    if (!*value || value[strspn(value, "0123456789")])
        return fail(e, E_INVALID, "Content-Length is not a number.");
    for (; *value; value++)
        if (__builtin_mul_overflow(n, (size_t)10, &n) || __builtin_add_overflow(n, (size_t)(*value - '0'), &n))
            return fail(e, E_TOO_LARGE, "Content-Length is too large.");
    if (m->has_length && m->content_length != n)
        return fail(e, E_INVALID, "There are two different Content-Length headers.");
    m->has_length = true;
    m->content_length = n;
    return 0;
}

static int note_transfer_encoding(struct http_message *m, const char *value, struct error *e)
{
    if (m->method || strcasecmp(value, "chunked") != 0)
        return fail(e, E_UNSUPPORTED, "Transfer-Encoding is not supported: send a Content-Length.");
    m->is_chunked = true;
    return 0;
}

static int note_connection(struct http_message *m, const char *value, struct error *e)
{
    (void)e;
    if (m->minor_version == 0 && http_has_token(value, "keep-alive"))
        m->keep_alive = true;
    return 0;
}

static int note_host(struct http_message *m, const char *value, struct error *e)
{
    const char *first = http_header_get(m, "Host");
    if (first != value) // two names for one request: somebody between us and the client may have used the other one
        return fail(e, E_INVALID, "There are two Host headers.");
    return 0;
}

// Headers that say something about the message itself.
static const struct {
    const char *name;
    int (*note)(struct http_message *m, const char *value, struct error *e);
} noted[] = {
    { "Content-Length", note_content_length },
    { "Transfer-Encoding", note_transfer_encoding },
    { "Connection", note_connection },
    { "Host", note_host },
};

static int read_headers(char *at, char *end, struct http_message *m, struct error *e)
{
    m->keep_alive = m->minor_version == 1;
    for (;;) {
        char *line = take_line(&at, end);
        if (!line)
            return fail(e, E_INVALID, "A header does not end in CR LF, or holds a NUL or CR.");
        if (!*line)
            break;
        int rc = read_header(line, m, e);
        if (rc < 0)
            return rc;
    }
    if (at != end)
        return fail(e, E_INVALID, "The head goes on after its empty line.");
    for (size_t i = 0; i < m->header_count; i++) {
        for (size_t k = 0; k < sizeof noted / sizeof noted[0]; k++) {
            if (strcasecmp(m->headers[i].name, noted[k].name) != 0)
                continue;
            int rc = noted[k].note(m, m->headers[i].value, e);
            if (rc < 0)
                return rc;
        }
    }
    if (m->is_chunked && m->has_length) // whoever stands between us and the server may have believed the other one
        return fail(e, E_INVALID, "There are both a Content-Length and chunks.");
    for (size_t i = 0; i < m->header_count; i++) // in the end: no "keep-alive" takes a "close" back
        if (strcasecmp(m->headers[i].name, "Connection") == 0 && http_has_token(m->headers[i].value, "close"))
            m->keep_alive = false;
    return 0;
}

int http_parse_request(char *head, size_t n, struct http_message *ret, struct error *e)
{
    struct http_message m = { 0 };
    char *at = head, *end = head + n;
    *end = 0;
    char *line = take_line(&at, end);
    if (!line)
        return fail(e, E_INVALID, "The request line does not end in CR LF, or holds a NUL or CR.");
    int rc = read_request_line(line, &m, e);
    if (rc < 0 || (rc = read_headers(at, end, &m, e)) < 0)
        return rc;
    *ret = m;
    return 0;
}

int http_parse_reply(char *head, size_t n, struct http_message *ret, struct error *e)
{
    struct http_message m = { 0 };
    char *at = head, *end = head + n;
    *end = 0;
    char *line = take_line(&at, end);
    if (!line)
        return fail(e, E_INVALID, "The status line does not end in CR LF, or holds a NUL or CR.");
    int rc = read_status_line(line, &m, e);
    if (rc < 0 || (rc = read_headers(at, end, &m, e)) < 0)
        return rc;
    *ret = m;
    return 0;
}

const char *http_header_get(const struct http_message *m, const char *name)
{
    for (size_t i = 0; i < m->header_count; i++)
        if (strcasecmp(m->headers[i].name, name) == 0)
            return m->headers[i].value;
    return NULL;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

// The size line of a chunk: hexadecimal digits, perhaps an extension. NULL if it is none.
static const char *read_chunk_size(const char *text, const char *end, size_t *ret)
{
    const char *feed = memchr(text, '\n', (size_t)(end - text)), *digits = text;
    size_t n = 0;
    if (!feed)
        return NULL;
    for (; hex_digit(*text) >= 0; text++)
        if (__builtin_mul_overflow(n, (size_t)16, &n) || __builtin_add_overflow(n, (size_t)hex_digit(*text), &n))
            return NULL;
    if (text == digits || feed[-1] != '\r' || (*text != '\r' && *text != ';' && *text != ' '))
        return NULL;
    *ret = n;
    return feed + 1;
}

int http_join_chunks(char *text, size_t n, size_t *ret_n, struct error *e)
{
    const char *at = text, *end = text + n;
    char *to = text;
    size_t size = 0;
    while ((at = read_chunk_size(at, end, &size)) && size > 0) {
        size_t left = (size_t)(end - at);
        if (size > left || left - size < 2 || at[size] != '\r' || at[size + 1] != '\n')
            break;
        memmove(to, at, size);
        to += size;
        at += size + 2;
    }
    if (!at || size > 0 || (size_t)(end - at) < 2 || memcmp(end - 2, "\r\n", 2) != 0)
        return fail(e, E_INVALID, "The reply ends in the middle of a chunk.");
    *ret_n = (size_t)(to - text);
    return 0;
}

bool http_percent_decode(char *text)
{
    char *to = text;
    for (const char *from = text; *from; from++) {
        if (*from != '%') {
            *to++ = *from;
            continue;
        }
        int high = hex_digit(from[1]);
        int low = high < 0 ? -1 : hex_digit(from[2]);
        if (low < 0 || high * 16 + low == 0)
            return false;
        *to++ = (char)(high * 16 + low);
        from += 2;
    }
    *to = 0;
    return true;
}

const char *http_status_text(int status)
{
    static const struct {
        int status;
        const char *text;
    } table[] = {
        { 100, "Continue" }, { 200, "OK" }, { 201, "Created" }, { 202, "Accepted" }, { 204, "No Content" }, { 304, "Not Modified" },
        { 400, "Bad Request" }, { 401, "Unauthorized" }, { 403, "Forbidden" }, { 404, "Not Found" }, { 405, "Method Not Allowed" },
        { 406, "Not Acceptable" }, { 408, "Request Timeout" }, { 409, "Conflict" }, { 411, "Length Required" },
        { 412, "Precondition Failed" }, { 413, "Content Too Large" }, { 415, "Unsupported Media Type" },
        { 428, "Precondition Required" }, { 429, "Too Many Requests" }, { 500, "Internal Server Error" }, { 501, "Not Implemented" },
        { 502, "Bad Gateway" }, { 503, "Service Unavailable" }, { 504, "Gateway Timeout" }, { 507, "Insufficient Storage" },
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (table[i].status == status)
            return table[i].text;
    return "Unknown";
}
