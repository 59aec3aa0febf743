// What is asked of control itself.
#include "cli/internal.h"

#include <errno.h>
#include <string.h>

// Control has another working directory than we.
static int absolute(const char *file, char **ret, struct error *e)
{
    if (file[0] == '/') {
        *ret = xstrdup(file);
        return 0;
    }
    AUTO(free) char *here = getcwd(NULL, 0);
    if (!here)
        return fail_os(e, errno, "the present directory");
    *ret = xasprintf("%s/%s", here, file);
    return 0;
}

static int run_backup(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    struct client control = cli_control(ctx);
    AUTO(free) char *path = NULL;
    (void)argc;
    control.timeout_ms = 600000; // it copies the whole store before it answers
    if (!*argv[0])
        return fail(e, E_INVALID, "the name of the file is empty");
    int rc = absolute(argv[0], &path, e);
    if (rc < 0)
        return rc;
    json_t *body = json_pack("{s:s}", "path", path);
    if (!body)
        return fail(e, E_INVALID, "the name of the file is not UTF-8");
    rc = client_call(&control, "POST", "/v2/backup", body, &ctx->result, e);
    if (rc < 0)
        return rc;
    AUTO(free) char *shown = text_escape(path);
    fprintf(ctx->out, "control's store is copied to %s\n", shown);
    return 0;
}

// ---- recover

static const char *member(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name)) ?: "";
}

// Where else something of it is kept. The caller frees it.
static char *kept(const json_t *volume)
{
    const json_t *list = json_object_get(volume, "kept"), *item;
    char *text = NULL;
    size_t i, n = 0;
    FILE *f = xmemstream(&text, &n);
    json_array_foreach(list, i, item)
    {
        const char *what = strcmp(member(item, "what"), "copy") == 0 ? "a copy" : "older data";
        fprintf(f, "%s%s on %s is kept", i ? ", " : "", what, member(item, "host"));
    }
    fclose(f);
    return text;
}

// What becomes of it, in words. The caller frees it.
static char *verdict(const json_t *volume)
{
    static const struct {
        const char *verdict, *text;
    } texts[] = {
        { "known", "as control has it" },
        { "waits", "left out: a later state of it may be on %s, which is not connected (--force decides without)" },
        { "busy", "left out: %s is just placing it; ask again, and if it stays so, after a restart of its agent" },
        { "used", "left out: older data of it is in use on %s: stop its containers there, and ask again" },
        { "mounted", "left out: older data of it is mounted on %s, by no container: end what else uses it there, and ask with --force" },
        { "newer-copy", "left out: %s has a copy of a later state (--force takes the older data, and the copy is lost)" },
        { "tied", "left out: %s has an equal claim to it" },
        { "copy-only", "left out: only a copy that was on its way is there" },
    };
    const char *word = member(volume, "verdict"), *other = member(volume, "other_host"), *was = member(volume, "was");
    if (strcmp(word, "taken") == 0)
        return *was ? xasprintf("taken in; it was %s, a name that another one has", was) : xstrdup("taken in");
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        const char *slot = strcmp(word, texts[i].verdict) == 0 ? strstr(texts[i].text, "%s") : NULL;
        if (slot)
            return xasprintf("%.*s%s%s", (int)(slot - texts[i].text), texts[i].text, *other ? other : member(volume, "other"), slot + 2);
        if (strcmp(word, texts[i].verdict) == 0)
            return xstrdup(texts[i].text);
    }
    return xstrdup(word);
}

static void print_recovered(FILE *out, const json_t *volumes)
{
    static const char *const headings[] = { "NAME", "ID", "NODE", "STATE", "NOTE", NULL };
    AUTO(table_free) struct table *t = table_new(headings);
    const json_t *volume;
    size_t i;
    json_array_foreach(volumes, i, volume)
    {
        AUTO(free) char *what = verdict(volume);
        AUTO(free) char *rest = kept(volume);
        AUTO(free) char *last = xasprintf("%s%s%s", what, *rest ? "; " : "", rest);
        const char *cells[] = { member(volume, "name"), member(volume, "id"), member(volume, "host"), member(volume, "state"), last };
        table_add(t, cells);
    }
    table_print(t, out);
}

static void print_asked(FILE *out, const json_t *nodes)
{
    const json_t *node;
    size_t i;
    json_array_foreach(nodes, i, node)
    {
        const char *why = member(json_object_get(node, "error"), "description");
        AUTO(free) char *shown = *why ? xasprintf("could not be asked: %s", why)
                                      : xasprintf("has %lld volumes and %lld copies", (long long)json_integer_value(json_object_get(node, "volumes")),
                                                  (long long)json_integer_value(json_object_get(node, "copies")));
        AUTO(free) char *line = text_escape(shown);
        fprintf(out, "node %s (%s) %s\n", member(node, "host"), member(node, "id"), line);
    }
}

static size_t taken(const json_t *volumes)
{
    const json_t *volume;
    size_t i, n = 0;
    json_array_foreach(volumes, i, volume)
    {
        n += strcmp(member(volume, "verdict"), "taken") == 0;
    }
    return n;
}

static int run_recover(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    struct client control = cli_control(ctx);
    bool dry_run = cli_value(ctx, "dry-run") != NULL;
    (void)argc;
    (void)argv;
    control.timeout_ms = 600000; // many records
    int rc = client_call(&control, "POST", "/v2/recover", json_pack("{s:b, s:b}", "dry_run", (int)dry_run, "force", (int)(cli_value(ctx, "force") != NULL)),
                         &ctx->result, e);
    if (rc < 0)
        return rc;
    const json_t *volumes = json_object_get(ctx->result, "volumes");
    print_asked(ctx->out, json_object_get(ctx->result, "nodes"));
    if (json_array_size(volumes))
        print_recovered(ctx->out, volumes);
    fprintf(ctx->out, "%zu volumes %s taken in%s\n", taken(volumes), dry_run ? "would be" : "are",
            dry_run ? "; nothing is changed yet"
                    : "; holds, containers of API v1, join tokens, which nodes were removed and which users revoked are not in any inventory");
    return 0;
}

static const struct cli_option recover_options[] = {
    { "dry-run", 'n', NULL, "Only show what would be done." },
    { "force", 'f', NULL, "Decide also without a node that may have a later state, although a copy is newer, or older data is mounted." },
    { NULL },
};

const struct cli_command commands_control[] = {
    { .name = "control backup",
      .args = "FILE",
      .summary = "copy control's store to a file",
      .text = "The copy is consistent although control goes on working. FILE must not be there yet. Control writes it, on its host, with its "
              "rights. It holds what volumes there are and where, not their data.\n\n"
              "    flocker control backup /var/backups/flocker.db",
      .run = run_backup },
    { .name = "control recover",
      .args = "",
      .summary = "rebuild a lost store from what the nodes have",
      .text = "For a control service that has started with an empty store, or an old backup of it: all connected nodes are asked for the volumes in "
              "their pools, and what control does not know, or knows as it was earlier, is taken in. Containers go on all the time. Wait until all "
              "nodes are connected, look at --dry-run, and do it; it can be done again when one more node has come.\n\n"
              "The highest epoch wins, and the owner is the node that has it. Of volumes with one name that which control "
              "knows keeps it, else the newest; the others get the beginning of their id added. What was in the trash is there again, for as long "
              "as if it had been removed now. Older data of a former owner is not deleted, it stays where it is. Holds, containers of API v1, join "
              "tokens, which nodes had been removed or were being drained, and which users were revoked, are lost with the store: their "
              "certificates count again, so remove those "
              "nodes and revoke those users again.\n\n"
              "    flocker control recover --dry-run\n    flocker control recover",
      .options = recover_options,
      .run = run_recover,
      .also = "rebuild restore" },
    { NULL },
};
