// Looking things up in the tables of commands.
#include "cli/internal.h"

#include <string.h>

const struct cli_option options_global[] = {
    { "json", 0, NULL, "Print one JSON document for programs instead of text for people." },
    { "root", 0, "DIR", "Put this before all default paths; for several nodes or tests on one machine." },
    { "control-service", 0, "HOST", "Ask control there, by TLS; also FLOCKER_CONTROL_SERVICE. Default: by this host's socket, or where agent.yml says." },
    { "control-port", 0, "PORT", "Its port; default 4523." },
    { "certs-path", 0, "DIR", "Find cluster.crt and the user's certificate there; also FLOCKER_CERTS_PATH. Default /etc/flocker." },
    { "user", 0, "NAME", "Show NAME.crt, with NAME.key; also FLOCKER_USER. Default user." },
    { "socket", 0, "PATH", "Control's socket; by default /run/flocker/control.sock below the root." },
    { "help", 'h', NULL, "Show help for the command." },
    { "version", 0, NULL, "Print the version." },
    { NULL },
};

size_t command_first_word(const struct cli_command *c)
{
    return strcspn(c->name, " ");
}

static bool is_same_group(const struct cli_command *a, const struct cli_command *b)
{
    size_t n = command_first_word(a);
    return n == command_first_word(b) && memcmp(a->name, b->name, n) == 0;
}

// The CLI's own first, then those of other layers, and help at the end.
static size_t collect(const struct cli_command *more, bool with_hidden, const struct cli_command **ret)
{
    const struct cli_command *const tables[] = { commands_volume,  commands_node, commands_user, commands_ca,  commands_pool, commands_status, more,
                                                 commands_control, commands_diagnostics, commands_help };
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_SIZE(tables); i++)
        for (const struct cli_command *c = tables[i]; c && c->name; c++) {
            if (c->hidden && !with_hidden)
                continue;
            if (ret)
                ret[n] = c;
            n++;
        }
    return n;
}

const struct cli_command **command_list(const struct cli_command *more, bool with_hidden)
{
    size_t n = collect(more, with_hidden, NULL), done = 0;
    AUTO(free) const struct cli_command **left = xcalloc(n + 1, sizeof(const struct cli_command *));
    const struct cli_command **ret = xcalloc(n + 1, sizeof(const struct cli_command *));
    collect(more, with_hidden, left);
    for (size_t i = 0; i < n; i++) {
        const struct cli_command *first = left[i];
        for (size_t j = i; first && j < n; j++) {
            if (!left[j] || !is_same_group(first, left[j]))
                continue;
            ret[done++] = left[j];
            left[j] = NULL;
        }
    }
    return ret;
}

const struct cli_command *command_find(const struct cli_command *more, const char *name)
{
    AUTO(free) const struct cli_command **list = command_list(more, true);
    for (size_t i = 0; list[i]; i++)
        if (strcmp(list[i]->name, name) == 0)
            return list[i];
    return NULL;
}

const struct cli_command *command_of_program(const struct cli_command *more, const char *program)
{
    AUTO(free) const struct cli_command **list = command_list(more, true);
    for (size_t i = 0; list[i]; i++)
        if (list[i]->program && strcmp(list[i]->program, program) == 0)
            return list[i];
    return NULL;
}

const char *group_of_program(const char *program)
{
    return strcmp(program, "flocker-ca") == 0 ? "ca" : NULL;
}

bool command_is_in(const struct cli_command *c, const char *words, bool with_self)
{
    size_t n = strlen(words);
    return n == 0 || (strncmp(c->name, words, n) == 0 && (c->name[n] == ' ' || (with_self && c->name[n] == '\0')));
}

bool command_is_group(const struct cli_command *more, const char *words)
{
    AUTO(free) const struct cli_command **list = command_list(more, true);
    for (size_t i = 0; list[i]; i++)
        if (*words && command_is_in(list[i], words, false))
            return true;
    return false;
}

void command_arity(const struct cli_command *c, int *ret_min, int *ret_max)
{
    *ret_min = *ret_max = 0;
    for (const char *p = c->args; *p;) {
        size_t n = strcspn(p, " ");
        *ret_min += *p != '[';
        *ret_max += *ret_max < INT32_MAX;
        if (memmem(p, n, "...", 3))
            *ret_max = INT32_MAX;
        p += n;
        p += strspn(p, " ");
    }
}

const char *group_summary(const char *group)
{
    static const struct {
        const char *group, *summary;
    } known[] = {
        { "volume", "create, list, resize, remove and restore volumes" },
        { "node", "the nodes of the cluster" },
        { "user", "users whose certificates were revoked" },
        { "ca", "the cluster's certificates" },
        { "pool", "this host's storage for volumes" },
        { "control", "the control service" },
    };
    for (size_t i = 0; i < ARRAY_SIZE(known); i++)
        if (strcmp(known[i].group, group) == 0)
            return known[i].summary;
    return group;
}

// ---- what was probably meant

// Edit distance in which two neighbours that are swapped count as one mistake. Both texts are short: the caller limits them.
#define TYPED_MAX 48
static size_t distance(const char *a, const char *b)
{
    size_t rows[3][TYPED_MAX + 1], n = strlen(b);
    size_t *before = rows[0], *last = rows[1], *now = rows[2];
    ASSERT(n <= TYPED_MAX);
    for (size_t j = 0; j <= n; j++)
        last[j] = before[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        now[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t cost = last[j - 1] + (a[i - 1] != b[j - 1]);
            if (cost > last[j] + 1)
                cost = last[j] + 1;
            if (cost > now[j - 1] + 1)
                cost = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && cost > before[j - 2] + 1)
                cost = before[j - 2] + 1;
            now[j] = cost;
        }
        size_t *spare = before;
        before = last;
        last = now;
        now = spare;
    }
    return last[n];
}

static bool is_in_list(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = list; p && *p; p += strspn(p, " ")) {
        size_t length = strcspn(p, " ");
        if (length == n && memcmp(p, word, n) == 0)
            return true;
        p += length;
    }
    return false;
}

static const char *last_word(const char *words)
{
    const char *space = strrchr(words, ' ');
    return space ? space + 1 : words;
}

// Another word for the same, in the same group: "volume list"; or, without a group, in any: "create".
static bool is_other_name(const struct cli_command *c, const char *typed)
{
    const char *word = last_word(typed), *own_word = last_word(c->name);
    size_t group = (size_t)(word - typed);
    if (group && strncmp(c->name, typed, group) != 0)
        return false;
    return is_in_list(c->also, word) || (!group && strcmp(own_word, word) == 0);
}

const char *command_nearest(const struct cli_command *more, const char *words)
{
    AUTO(free) const struct cli_command **list = command_list(more, false);
    const char *nearest = NULL;
    size_t least = strlen(words) / 3 + 2; // one more than is near
    if (!*words || strlen(words) > TYPED_MAX)
        return NULL;
    for (size_t i = 0; list[i]; i++)
        if (is_other_name(list[i], words))
            return list[i]->name;
    for (size_t i = 0; list[i]; i++) {
        if (strlen(list[i]->name) > TYPED_MAX)
            continue;
        size_t d = distance(words, list[i]->name), alone = distance(words, last_word(list[i]->name)); // "creat" for "volume create"
        if (alone < d)
            d = alone;
        if (d < least) {
            nearest = list[i]->name;
            least = d;
        }
    }
    return nearest;
}

int fail_unknown(const struct cli_command *more, const char *words, struct error *e)
{
    const char *nearest = command_nearest(more, words);
    AUTO(free) char *shown = text_escape(words);
    if (nearest)
        return fail(e, E_INVALID, "there is no command \"%.100s\"; did you mean \"%s\"?", shown, nearest);
    const char *space = strrchr(words, ' ');
    AUTO(free) char *group = xstrndup(words, space ? (size_t)(space - words) : 0);
    bool is_group = *group && command_is_group(more, group);
    return fail(e, E_INVALID, "there is no command \"%.100s\"; `flocker help%s%s` lists them all", shown, is_group ? " " : "",
                is_group ? group : "");
}
