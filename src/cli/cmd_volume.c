// Volumes.
#include "cli/internal.h"

#include "base/clock.h"
#include "base/limits.h"
#include "base/size.h"
#include "model/metadata.h"
#include "model/volume.h"

#include <string.h>

// ---- what control says of a volume

static const char *member(const json_t *volume, const char *name)
{
    return json_string_value(json_object_get(volume, name));
}

// Its name, or its id if it has none.
static const char *label(const json_t *volume)
{
    const char *name = member(volume, "name"), *id = member(volume, "id");
    return name ? name : id ? id : "?";
}

static bool is_in_state(const json_t *volume, const char *state)
{
    const char *word = member(volume, "state");
    return word && strcmp(word, state) == 0;
}

// One word for people: what is live is "ready", or on the way, or its node is away.
static const char *state_word(const json_t *volume)
{
    static const char *const of_node[][2] = { { "down", "unavailable" }, { "removed", "lost" } };
    const char *node = member(volume, "node_state");
    if (!is_in_state(volume, "live"))
        return member(volume, "state");
    for (size_t i = 0; node && i < ARRAY_SIZE(of_node); i++)
        if (strcmp(node, of_node[i][0]) == 0)
            return of_node[i][1];
    return json_is_true(json_object_get(volume, "ready")) ? "ready" : "pending";
}

// "2026-01-02 03:04 UTC" of an RFC 3339 time.
#define WHEN_SIZE 40
static const char *when(const char *time, char ret[WHEN_SIZE])
{
    if (text_to_ms(time) >= 0)
        snprintf(ret, WHEN_SIZE, "%.10s %.5s UTC", time, time + 11);
    else
        snprintf(ret, WHEN_SIZE, "some time");
    return ret;
}

// How far its move is: "moves to 10.0.0.2: 43 % of 1.20GiB", and for what it waits although nothing is wrong. The caller frees it.
static char *progress(const json_t *volume)
{
    const json_t *move = json_object_get(volume, "move"), *error = json_object_get(move, "error");
    const char *stage = member(move, "stage"), *host = member(move, "host"), *why = member(error, "description");
    const char *target = host && *host ? host : member(volume, "target") ?: "?";
    json_int_t bytes = json_integer_value(json_object_get(move, "bytes")), total = json_integer_value(json_object_get(move, "total"));
    const char *waits = json_is_true(json_object_get(volume, "in_use")) ? "; it is in use, and goes when that ends" : "";
    char size[SIZE_TEXT_SIZE];
    if (strcmp(stage ? stage : "", "settle") == 0 || strcmp(stage ? stage : "", "release") == 0)
        return xstrdup("has moved; its former node still has a copy");
    if (why)
        return xasprintf("moves to %s: %s", target, why);
    if (total <= 0)
        return xasprintf("moves to %s (%s)%s", target, stage ? stage : "?", waits);
    return xasprintf("moves to %s: %d %% of %s%s", target, bytes < total ? (int)(bytes * 100 / total) : 99, size_format((uint64_t)total, size), waits);
}

// Why it is not as wanted, or until when it can be restored. "" if there is nothing to say. The caller frees it.
static char *note(const json_t *volume)
{
    char text[WHEN_SIZE];
    const char *error = member(json_object_get(volume, "error"), "description");
    if (is_in_state(volume, "trashed"))
        return xasprintf("can be restored until %s", when(member(volume, "purge"), text));
    if (json_object_get(volume, "move") && !error)
        return progress(volume);
    return xstrdup(error ? error : "");
}

// ---- calls

// "/v2/volumes/<name><rest>"; the caller frees it. E_INVALID for what can't be the name or id of a volume.
static int volume_target(const char *name, const char *rest, char **ret, struct error *e)
{
    size_t n = strlen(name);
    if (n == 0)
        return fail(e, E_INVALID, "a volume's name is empty");
    if (n > NAME_BYTES_MAX)
        return fail(e, E_INVALID, "volume name \"%.16s...\" is too long: at most %d bytes", name, NAME_BYTES_MAX);
    AUTO(free) char *encoded = client_encode(name);
    *ret = xasprintf("/v2/volumes/%s%s", encoded, rest);
    return 0;
}

static int volume_call(const struct cli_context *ctx, const char *method, const char *name, const char *rest, json_t *body,
                       json_t **ret, struct error *e)
{
    const struct client control = cli_control(ctx);
    AUTO(free) char *target = NULL;
    int rc = volume_target(name, rest, &target, e);
    if (rc < 0) {
        json_decref(body);
        return rc;
    }
    return client_call(&control, method, target, body, ret, e);
}

// A call that changed a live volume has come back: either its owner has carried it out, or it says why not, or the time was over.
static int check_outcome(const json_t *volume, const char *done, int64_t began_ms, struct error *e)
{
    const json_t *error = json_object_get(volume, "error");
    if (json_is_object(error)) {
        const char *word = member(error, "code"), *text = member(error, "description");
        return fail(e, error_from_word(word ? word : ""), "volume %s is %s, but not on its node yet: %s", label(volume), done,
                    text ? text : "no reason given");
    }
    bool is_late = clock_boot_ms() - began_ms >= CLIENT_WAIT_S * 1000LL;
    if (is_late || !json_is_true(json_object_get(volume, "ready")))
        return fail(e, E_TIMEOUT, "volume %s is %s, but its node has not finished; `flocker volume ls` shows when it has",
                    label(volume), done);
    return 0;
}

// ---- create

static int read_metadata(const struct cli_context *ctx, json_t *body, struct error *e)
{
    struct metadata m = { 0 };
    size_t at = 0;
    const char *pair, *profile = cli_value(ctx, "profile");
    int rc = profile ? metadata_set(&m, METADATA_PROFILE, profile, e) : 0;
    while (rc == 0 && (pair = cli_next_value(ctx, "metadata", &at))) {
        const char *equals = strchr(pair, '=');
        if (!equals) {
            rc = fail(e, E_INVALID, "--metadata %.60s: write it as KEY=VALUE", pair);
            break;
        }
        AUTO(free) char *key = xstrndup(pair, (size_t)(equals - pair));
        rc = metadata_set(&m, key, equals + 1, e);
    }
    if (rc == 0 && m.n)
        json_object_set_new(body, "metadata", metadata_to_json(&m));
    metadata_done(&m);
    return rc;
}

static int read_limit(const char *text, uint64_t *ret, struct error *e)
{
    if (strcmp(text, "none") != 0)
        return size_parse(text, ret, e);
    *ret = 0;
    return 0;
}

static int read_wish(const struct cli_context *ctx, const char *name, json_t *body, struct error *e)
{
    const char *size_text = cli_value(ctx, "size"), *node_text = cli_value(ctx, "node");
    struct volume_options options = VOLUME_OPTIONS_DEFAULT;
    uint64_t size = 0, uid = options.uid, gid = options.gid, mode = options.mode;
    int rc = volume_name_check(name, e);
    if (rc < 0 || (size_text && (rc = read_limit(size_text, &size, e)) < 0) ||
        (rc = cli_number(ctx, "uid", 10, UINT32_MAX - 1, &uid, e)) < 0 ||
        (rc = cli_number(ctx, "gid", 10, UINT32_MAX - 1, &gid, e)) < 0 || (rc = cli_number(ctx, "mode", 8, 07777, &mode, e)) < 0)
        return rc;
    json_object_set_new(body, "name", json_string(name));
    json_object_set_new(body, "size", json_integer((json_int_t)size));
    json_object_set_new(body, "options",
                        json_pack("{s:I, s:I, s:I, s:b}", "uid", (json_int_t)uid, "gid", (json_int_t)gid, "mode", (json_int_t)mode,
                                  "nocow", (int)(cli_value(ctx, "nocow") != NULL)));
    if (node_text)
        json_object_set_new(body, "owner", json_string(node_text));
    return read_metadata(ctx, body, e);
}

static int run_create(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    const struct client control = cli_control(ctx);
    AUTO(json_decref) json_t *body = json_object();
    int64_t began_ms = clock_boot_ms();
    (void)argc;
    int rc = read_wish(ctx, argv[0], body, e);
    if (rc < 0)
        return rc;
    rc = client_call(&control, "POST", "/v2/volumes?wait=30", TAKE(body, NULL), &ctx->result, e);
    if (rc < 0 || (rc = check_outcome(ctx->result, "created", began_ms, e)) < 0)
        return rc;
    fprintf(ctx->out, "%s\n", argv[0]);
    return 0;
}

// ---- ls

static void add_volume(struct table *t, const json_t *volume, int64_t now_ms)
{
    char size_text[SIZE_TEXT_SIZE], age_text[AGE_SIZE];
    json_int_t size = json_integer_value(json_object_get(volume, "size"));
    const char *host = member(volume, "host");
    int64_t created_ms = text_to_ms(member(volume, "created"));
    AUTO(free) char *last = note(volume);
    const char *cells[] = { label(volume),
                            size > 0 ? size_format((uint64_t)size, size_text) : "no limit",
                            state_word(volume),
                            host && *host ? host : member(volume, "owner"),
                            json_is_true(json_object_get(volume, "mounted")) ? "yes" : "no",
                            created_ms >= 0 ? text_age(now_ms - created_ms, age_text) : "",
                            last };
    table_add(t, cells);
}

static int compare_labels(const void *a, const void *b)
{
    return strcmp(label(*(json_t *const *)a), label(*(json_t *const *)b));
}

static int run_ls(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    static const char *const headings[] = { "NAME", "SIZE", "STATE", "NODE", "MOUNTED", "AGE", "NOTE", NULL };
    const struct client control = cli_control(ctx);
    const char *target = cli_value(ctx, "all") ? "/v2/volumes?all=1" : "/v2/volumes";
    (void)argc;
    (void)argv;
    int rc = client_list(&control, target, &ctx->result, e);
    if (rc < 0)
        return rc;
    size_t n = json_array_size(ctx->result);
    AUTO(free) json_t **volumes = xcalloc(n, sizeof *volumes);
    AUTO(table_free) struct table *t = table_new(headings);
    for (size_t i = 0; i < n; i++)
        volumes[i] = json_array_get(ctx->result, i);
    qsort(volumes, n, sizeof *volumes, compare_labels);
    for (size_t i = 0; i < n; i++) {
        AUTO(free) char *name = text_escape(label(volumes[i]));
        if (cli_value(ctx, "quiet"))
            fprintf(ctx->out, "%s\n", name);
        else
            add_volume(t, volumes[i], clock_wall_ms());
    }
    if (!cli_value(ctx, "quiet"))
        table_print(t, ctx->out);
    return 0;
}

// ---- inspect

static void print_line(FILE *out, const char *name, const char *value)
{
    AUTO(free) char *shown = text_escape(value ? value : "");
    if (value && *value)
        fprintf(out, "  %-10s %s\n", name, shown);
}

static void print_options(FILE *out, const json_t *options)
{
    fprintf(out, "  %-10s uid %lld, gid %lld, mode %04llo%s\n", "made with",
            (long long)json_integer_value(json_object_get(options, "uid")),
            (long long)json_integer_value(json_object_get(options, "gid")),
            (unsigned long long)json_integer_value(json_object_get(options, "mode")),
            json_is_true(json_object_get(options, "nocow")) ? ", no copy-on-write" : "");
}

static void print_volume(FILE *out, const json_t *volume)
{
    char size_text[SIZE_TEXT_SIZE], used_text[SIZE_TEXT_SIZE];
    json_int_t size = json_integer_value(json_object_get(volume, "size"));
    const json_t *used = json_object_get(volume, "used");
    AUTO(free) char *name = text_escape(label(volume));
    AUTO(free) char *last = note(volume);
    const char *host = member(volume, "host"), *owner = member(volume, "owner") ?: "?";
    AUTO(free) char *node = host && *host ? xasprintf("%s (%s)", host, owner) : xstrdup(owner);
    const char *key;
    json_t *value;
    fprintf(out, "%s\n", name);
    print_line(out, "id", member(volume, "id"));
    print_line(out, "state", state_word(volume));
    print_line(out, "note", last);
    print_line(out, "size", size > 0 ? size_format((uint64_t)size, size_text) : "no limit");
    print_line(out, "used", json_is_integer(used) ? size_format((uint64_t)json_integer_value(used), used_text) : NULL);
    print_line(out, "node", node);
    print_line(out, "mounted", json_is_true(json_object_get(volume, "mounted")) ? "yes" : "no");
    print_line(out, "path", member(volume, "path"));
    print_line(out, "created", member(volume, "created"));
    print_options(out, json_object_get(volume, "options"));
    json_object_foreach(json_object_get(volume, "metadata"), key, value)
    {
        AUTO(free) char *pair = xasprintf("%s=%s", key, json_string_value(value) ?: "");
        print_line(out, "metadata", pair);
    }
}

// ---- several volumes by one command

typedef int on_name(struct cli_context *ctx, const char *name, json_t **ret, struct error *e);

// Goes on after a failure, so that one name that is wrong does not keep the others waiting. The result is an array of those that
// went well. One failure is returned as it is; of several, the first one's code and all messages as far as they fit.
static int each_name(struct cli_context *ctx, int argc, char **argv, on_name *run, struct error *e)
{
    int rc = 0;
    ctx->result = json_array();
    for (int i = 0; i < argc; i++) {
        struct error one = ERROR_INIT;
        json_t *reply = NULL;
        int one_rc = run(ctx, argv[i], &reply, &one);
        if (one_rc == 0) {
            json_array_append_new(ctx->result, reply);
            continue;
        }
        if (rc == 0) {
            rc = one_rc;
            *e = one;
            continue;
        }
        size_t used = strlen(e->msg);
        snprintf(e->msg + used, sizeof e->msg - used, "; %s", one.msg);
    }
    return rc;
}

static int inspect_one(struct cli_context *ctx, const char *name, json_t **ret, struct error *e)
{
    int rc = volume_call(ctx, "GET", name, "?usage=1", NULL, ret, e);
    if (rc == 0)
        print_volume(ctx->out, *ret);
    return rc;
}

static int run_inspect(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    return each_name(ctx, argc, argv, inspect_one, e);
}

// ---- resize

static int run_resize(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    uint64_t size = 0;
    char text[SIZE_TEXT_SIZE];
    int64_t began_ms = clock_boot_ms();
    (void)argc;
    int rc = read_limit(argv[1], &size, e);
    if (rc < 0)
        return rc;
    rc = volume_call(ctx, "PATCH", argv[0], "?wait=30", json_pack("{s:I}", "size", (json_int_t)size), &ctx->result, e);
    if (rc < 0 || (rc = check_outcome(ctx->result, "resized", began_ms, e)) < 0)
        return rc;
    AUTO(free) char *name = text_escape(label(ctx->result));
    if (size)
        fprintf(ctx->out, "%s can hold %s now\n", name, size_format(size, text));
    else
        fprintf(ctx->out, "%s has no limit of its own now\n", name);
    return 0;
}

// ---- rm

static void print_removed(FILE *out, const json_t *volume)
{
    char text[WHEN_SIZE];
    AUTO(free) char *name = text_escape(label(volume));
    if (is_in_state(volume, "trashed"))
        fprintf(out, "%s is in the trash until %s; to have it back: flocker volume restore %s\n", name,
                when(member(volume, "purge"), text), name);
    else
        fprintf(out, "%s is gone; it held no data\n", name);
}

static int remove_one(struct cli_context *ctx, const char *name, json_t **ret, struct error *e)
{
    int rc = volume_call(ctx, "DELETE", name, "?wait=30", NULL, ret, e);
    if (rc == 0)
        print_removed(ctx->out, *ret);
    return rc;
}

// Destroys what is in the trash. When control has forgotten the volume by the time it answers, it is gone too.
static int purge(struct cli_context *ctx, const char *id, json_t **ret, struct error *e)
{
    json_t *volume = NULL;
    int rc = volume_call(ctx, "DELETE", id, "?purge=1&wait=30", NULL, &volume, e);
    if (rc == -E_NOT_FOUND)
        return 0;
    if (rc < 0)
        return rc;
    json_decref(*ret);
    *ret = volume;
    if (is_in_state(volume, "deleted"))
        return 0;
    const json_t *error = json_object_get(volume, "error");
    const char *word = member(error, "code"), *text = member(error, "description");
    if (json_is_object(error))
        return fail(e, error_from_word(word ? word : ""), "volume %s is to be destroyed, but its node has not done it yet: %s",
                    label(volume), text ? text : "no reason given");
    return fail(e, E_TIMEOUT, "volume %s is being destroyed; `flocker volume ls --all` no longer shows it when that is done",
                label(volume));
}

// A volume in use goes to the trash first: that is where its owner finds out that nothing uses it. From there on it is meant by its
// id, since another one may take the name.
static int purge_one(struct cli_context *ctx, const char *name, json_t **ret, struct error *e)
{
    AUTO(json_decref) json_t *volume = NULL;
    int rc = volume_call(ctx, "GET", name, "", NULL, &volume, e);
    if (rc < 0)
        return rc;
    AUTO(free) char *id = xstrdup(member(volume, "id") ?: "");
    if (is_in_state(volume, "live")) {
        json_decref(volume);
        volume = NULL;
        rc = volume_call(ctx, "DELETE", id, "?wait=30", NULL, &volume, e);
        if (rc < 0)
            return rc;
    }
    if (!is_in_state(volume, "deleted") && (rc = purge(ctx, id, &volume, e)) < 0)
        return rc;
    AUTO(free) char *shown = text_escape(name);
    fprintf(ctx->out, "%s is destroyed\n", shown);
    *ret = TAKE(volume, NULL);
    return 0;
}

static int run_rm(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    return each_name(ctx, argc, argv, cli_value(ctx, "purge") ? purge_one : remove_one, e);
}

// ---- restore

static int run_restore(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    const char *as = cli_value(ctx, "as");
    int64_t began_ms = clock_boot_ms();
    (void)argc;
    int rc = as ? volume_name_check(as, e) : 0;
    if (rc < 0)
        return rc;
    rc =
        volume_call(ctx, "POST", argv[0], "/restore?wait=30", as ? json_pack("{s:s}", "name", as) : json_object(), &ctx->result, e);
    if (rc < 0 || (rc = check_outcome(ctx->result, "restored", began_ms, e)) < 0)
        return rc;
    AUTO(free) char *name = text_escape(label(ctx->result));
    fprintf(ctx->out, "%s is back\n", name);
    return 0;
}

// ---- move

static bool has_arrived(const json_t *volume)
{
    const char *owner = member(volume, "owner"), *target = member(volume, "target");
    return owner && target && strcmp(owner, target) == 0 && json_is_true(json_object_get(volume, "ready"));
}

static int read_move(const struct cli_context *ctx, const char *node, json_t **ret, struct error *e)
{
    const char *rate = cli_value(ctx, "rate-limit");
    uint64_t bytes = 0;
    int rc = rate ? read_limit(rate, &bytes, e) : 0;
    if (rc == 0)
        *ret = json_pack("{s:s, s:b, s:I}", "node", node, "force", (int)(cli_value(ctx, "force") != NULL), "rate_limit", (json_int_t)bytes);
    return rc;
}

// "is on node 10.0.0.2 (<id>)". The caller frees it.
static char *where(const json_t *volume)
{
    return xasprintf("is on node %s (%s)", member(volume, "host") ?: "unknown", member(volume, "owner"));
}

// Asks again and again until it is there; the answer comes at once when it is. With a terminal the progress is shown.
static int wait_until_moved(struct cli_context *ctx, const char *name, const char *node, struct error *e)
{
    while (!has_arrived(ctx->result)) {
        json_t *body = NULL;
        AUTO(free) char *text = progress(ctx->result);
        AUTO(free) char *shown = text_escape(text);
        fprintf(ctx->out, "%s %s\n", label(ctx->result), shown);
        fflush(ctx->out);
        int rc = read_move(ctx, node, &body, e);
        json_decref(ctx->result);
        ctx->result = NULL;
        if (rc < 0 || (rc = volume_call(ctx, "POST", name, "/move?wait=10", body, &ctx->result, e)) < 0)
            return rc;
    }
    return 0;
}

static int cancel_move(struct cli_context *ctx, const char *name, struct error *e)
{
    int rc = volume_call(ctx, "DELETE", name, "/move", NULL, &ctx->result, e);
    if (rc == 0)
        fprintf(ctx->out, "%s stays where it is\n", label(ctx->result));
    return rc;
}

static int run_move(struct cli_context *ctx, int argc, char **argv, struct error *e)
{
    json_t *body = NULL;
    bool cancels = cli_value(ctx, "cancel") != NULL;
    if (cancels != (argc == 1))
        return fail(e, E_INVALID, cancels ? "--cancel takes the volume alone" : "say to which node; `flocker node ls` lists them");
    if (cancels)
        return cancel_move(ctx, argv[0], e);
    int rc = read_move(ctx, argv[1], &body, e);
    if (rc < 0 || (rc = volume_call(ctx, "POST", argv[0], "/move", body, &ctx->result, e)) < 0)
        return rc;
    if (cli_value(ctx, "wait") && (rc = wait_until_moved(ctx, argv[0], argv[1], e)) < 0)
        return rc;
    AUTO(free) char *text = has_arrived(ctx->result) ? where(ctx->result) : progress(ctx->result);
    AUTO(free) char *shown = text_escape(text);
    fprintf(ctx->out, "%s %s\n", label(ctx->result), shown);
    return 0;
}

// ---- the table

static const struct cli_option move_options[] = {
    { "wait", 'w', NULL, "Wait until it is there, and show how far it is." },
    { "force", 'f', NULL, "Stop the containers that use it, instead of waiting until they end." },
    { "rate-limit", 0, "SIZE", "Bytes per second that the transfer may take, as 50M; none: as fast as it goes." },
    { "cancel", 0, NULL, "Call the move off: it stays where it is." },
    { NULL },
};
static const struct cli_option create_options[] = {
    { "size", 's', "SIZE", "Limit what it can hold, as 10G; 0 or none: only the pool limits it, as without this option." },
    { "uid", 0, "N", "Owner of its root directory; 0 by default." },
    { "gid", 0, "N", "Group of its root directory; 0 by default." },
    { "mode", 0, "MODE", "Permission bits of its root directory, octal as for chmod(1); 0777 by default." },
    { "nocow", 0, NULL, "Switch copy-on-write off for its files, for databases. Their data then has no checksums." },
    { "profile", 0, "PROFILE", "Storage profile, kept in its metadata: gold, silver or bronze in the original Flocker." },
    { "metadata", 'm', "KEY=VALUE", "Keep this with the volume. Can be given up to 16 times." },
    { "node", 0, "NODE", "Make it there: a node's id, the beginning of one, or its address. Default: the connected node whose pool has most free space." },
    { NULL },
};
static const struct cli_option ls_options[] = {
    { "all", 'a', NULL, "Also those in the trash and those being destroyed." },
    { "quiet", 'q', NULL, "Print only names, one per line." },
    { NULL },
};
static const struct cli_option rm_options[] = {
    { "purge", 0, NULL, "Destroy the data now, also of volumes that are in the trash already. This can't be undone." },
    { NULL },
};
static const struct cli_option restore_options[] = {
    { "as", 0, "NAME", "Give it another name, if its own has been taken since." },
    { NULL },
};

const struct cli_command commands_volume[] = {
    { .name = "volume create",
      .args = "NAME",
      .summary = "create a volume",
      .text = "Waits until the volume is ready on its node and prints its name. Containers then use it by that name; Docker also "
              "creates "
              "volumes itself when a container names one that does not exist.\n\n"
              "    flocker volume create db --size 10G --uid 999 --gid 999 --mode 0700\n"
              "    docker run -v db:/var/lib/postgresql/data --volume-driver=flocker postgres",
      .options = create_options,
      .run = run_create,
      .also = "new add make" },
    { .name = "volume ls",
      .args = "",
      .summary = "list volumes",
      .text = "STATE is ready, pending (not on its node yet: NOTE says why, if something is wrong), unavailable (its node is not connected), "
              "lost (its node was removed from the cluster, and its data with it), trashed (can be restored until the time in "
              "NOTE) or purging (being destroyed). MOUNTED says whether a container uses it.\n\n"
              "    flocker volume ls --all",
      .options = ls_options,
      .run = run_ls,
      .also = "list" },
    { .name = "volume inspect",
      .args = "VOLUME...",
      .summary = "show all that is known of volumes",
      .text =
          "VOLUME is a name or an id. A name that no live volume has means the one of that name that was put in the trash last.\n\n"
          "    flocker volume inspect db --json",
      .options = NULL,
      .run = run_inspect,
      .also = "show get" },
    { .name = "volume resize",
      .args = "VOLUME SIZE",
      .summary = "change how much a volume can hold",
      .text = "SIZE is a number and a unit, as 10G or 512MiB; 0 or none takes the limit away. This works while the volume is in "
              "use.\n\n"
              "    flocker volume resize db 20G",
      .options = NULL,
      .run = run_resize,
      .also = "grow set-size" },
    { .name = "volume move",
      .args = "VOLUME [NODE]",
      .summary = "move a volume to another node",
      .text = "NODE is a node's id, the beginning of one, or its address. While containers use the volume, most of its data goes over already; it "
              "moves when the last of them has ended, and once most has gone over, no new one can start. A container that starts on another "
              "node moves a volume that nobody uses by itself.\n\n"
              "A move is refused if the node's pool has no room for the volume, with some to spare, or if its data is missing. What turns up later, "
              "`flocker volume inspect` shows; the move waits, and goes on when it is put right.\n\n"
              "    flocker volume move db 10.0.0.2 --wait\n"
              "    flocker volume move db --cancel",
      .options = move_options,
      .run = run_move,
      .also = "mv migrate" },
    { .name = "volume rm",
      .args = "VOLUME...",
      .summary = "move volumes to the trash",
      .text = "A volume that is in use is refused; the message names what uses it. For 24 hours, unless control is set up "
              "otherwise, `flocker "
              "volume restore` brings a removed volume back with all its data; then its space is freed.\n\n"
              "    flocker volume rm db\n"
              "    flocker volume rm --purge db",
      .options = rm_options,
      .run = run_rm,
      .also = "remove delete destroy del" },
    { .name = "volume restore",
      .args = "VOLUME",
      .summary = "take a volume out of the trash",
      .text = "If several removed volumes have had the name, it means the one that was removed last; `flocker volume ls --all "
              "--json` shows "
              "the ids of the others.\n\n"
              "    flocker volume restore db\n"
              "    flocker volume restore db --as db-before",
      .options = restore_options,
      .run = run_restore,
      .also = "undelete recover" },
    { NULL },
};
