// Certificates: what is made is what was asked for, by our own reading and by that of the openssl program; nothing is overwritten.
#include "test.h"

#include "base/mem.h"
#include "net/pki.h"

#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <openssl/ssl.h>

static char dir[64];

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *at)
{
    (void)st, (void)flag, (void)at;
    return remove(path);
}

static int enter(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/flocker-pki-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int leave(void **state)
{
    (void)state;
    return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void must(int rc, const struct error *e)
{
    if (rc < 0)
        fail_msg("%s", e->msg);
}

static char *at(const char *file)
{
    return xasprintf("%s/%s", dir, file);
}

// Runs the openssl program with up to 8 arguments; returns its exit status and what it printed.
static int openssl_run(const char *const argv[], char *ret, size_t n)
{
    int out[2];
    size_t have = 0;
    assert_int_equal(pipe(out), 0);
    pid_t pid = fork();
    if (pid == 0) {
        char *copy[16] = { (char[]){ "openssl" } };
        for (size_t i = 0; argv[i]; i++)
            copy[i + 1] = xstrdup(argv[i]);
        dup2(out[1], 1);
        dup2(out[1], 2);
        execvp("openssl", copy);
        _exit(127);
    }
    close(out[1]);
    for (ssize_t got; have < n - 1 && (got = read(out[0], ret + have, n - 1 - have)) > 0;)
        have += (size_t)got;
    ret[have] = 0;
    close(out[0]);
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        skip();
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void make(const char *file, const char *name, unsigned use)
{
    static const char *const dns[] = { "control.example", "localhost", NULL }, *const ip[] = { "192.0.2.7", "2001:db8::7", NULL };
    struct error e;
    struct pki_request r = { .common_name = name, .use = use, .dns = dns, .ip = ip, .days = 365 };
    must(pki_make_certificate(dir, dir, file, &r, &e), &e);
}

static void must_contain(const char *text, const char *what)
{
    if (!strstr(text, what))
        fail_msg("\"%s\" is missing in:\n%s", what, text);
}

static mode_t mode_of(const char *file)
{
    struct stat st;
    AUTO(free) char *path = at(file);
    assert_int_equal(stat(path, &st), 0);
    return st.st_mode & 0777;
}

static void files_come_whole_and_are_never_overwritten(void **state)
{
    (void)state;
    struct error e;
    struct pki_request r = { .common_name = "x", .use = PKI_CLIENT, .days = 1 };
    assert_false(pki_has(dir, "cluster"));
    must(pki_make_ca(dir, "my cluster", 3650, &e), &e);
    assert_true(pki_has(dir, "cluster"));
    assert_int_equal(mode_of("cluster.key"), 0600);
    assert_int_equal(mode_of("cluster.crt"), 0644);
    assert_int_equal(pki_make_ca(dir, "other", 3650, &e), -E_CONFLICT);
    make("node", "node-1", PKI_CLIENT | PKI_SERVER);
    assert_int_equal(mode_of("node.key"), 0600);
    assert_int_equal(pki_make_certificate(dir, dir, "node", &r, &e), -E_CONFLICT);
    AUTO(free) char *crt = at("node.crt");
    assert_int_equal(unlink(crt), 0); // a key alone, as a crash leaves it
    assert_false(pki_has(dir, "node"));
    assert_int_equal(pki_make_certificate(dir, dir, "node", &r, &e), -E_CONFLICT);
    must_contain(e.msg, "without a certificate");
    AUTO(free) char *nowhere = at("missing");
    assert_int_equal(pki_make_certificate(dir, nowhere, "a", &r, &e), -E_NOT_FOUND);
    assert_int_equal(pki_make_certificate(nowhere, dir, "a", &r, &e), -E_NOT_FOUND);
    assert_int_equal(pki_make_ca(nowhere, "a", 1, &e), -E_NOT_FOUND);
    assert_false(pki_has(dir, "a"));
}

static void names_read_back(void **state)
{
    (void)state;
    struct error e;
    char name[128], small[4];
    must(pki_make_ca(dir, "my cluster", 3650, &e), &e);
    make("alice", "user-alic\xc3\xa9", PKI_CLIENT);
    AUTO(free) char *crt = at("alice.crt");
    AUTO(free) char *key = at("alice.key");
    AUTO(free) char *missing = at("missing.crt");
    must(pki_common_name(crt, name, sizeof name, &e), &e);
    assert_string_equal(name, "user-alic\xc3\xa9");
    assert_int_equal(pki_common_name(crt, small, sizeof small, &e), -E_CORRUPT);
    assert_int_equal(pki_common_name(key, name, sizeof name, &e), -E_CORRUPT);
    assert_int_equal(pki_common_name(missing, name, sizeof name, &e), -E_NOT_FOUND);
}

static void openssl_agrees_about_the_ca(void **state)
{
    (void)state;
    struct error e;
    char text[8192];
    must(pki_make_ca(dir, "my cluster", 3650, &e), &e);
    AUTO(free) char *crt = at("cluster.crt");
    assert_int_equal(openssl_run((const char *const[]){ "x509", "-in", crt, "-noout", "-text", NULL }, text, sizeof text), 0);
    static const char *const want[] = { "Version: 3", "CN = my cluster", "OU = ", "prime256v1", "ecdsa-with-SHA256",
        "Basic Constraints: critical\n                CA:TRUE, pathlen:0", "Key Usage: critical\n                Certificate Sign, CRL Sign",
        "Subject Key Identifier", "Authority Key Identifier" };
    for (size_t i = 0; i < ARRAY_SIZE(want); i++)
        must_contain(text, want[i]);
    assert_int_equal(openssl_run((const char *const[]){ "verify", "-x509_strict", "-CAfile", crt, crt, NULL }, text, sizeof text), 0);
}

static void openssl_agrees_about_certificates(void **state)
{
    (void)state;
    struct error e;
    char text[8192], cluster[256];
    must(pki_make_ca(dir, "my cluster", 30, &e), &e);
    make("both", "control-service", PKI_SERVER | PKI_CLIENT);
    make("client", "user-bob", PKI_CLIENT);
    AUTO(free) char *ca = at("cluster.crt");
    AUTO(free) char *both = at("both.crt");
    AUTO(free) char *client = at("client.crt");
    AUTO(free) char *key = at("both.key");
    assert_int_equal(openssl_run((const char *const[]){ "x509", "-in", both, "-noout", "-text", NULL }, text, sizeof text), 0);
    static const char *const want[] = { "Version: 3", "CN = control-service", "prime256v1", "ecdsa-with-SHA256",
        "Basic Constraints: critical\n                CA:FALSE", "Key Usage: critical\n                Digital Signature",
        "TLS Web Server Authentication, TLS Web Client Authentication", "DNS:control.example", "DNS:localhost", "IP Address:192.0.2.7",
        "IP Address:2001:DB8:0:0:0:0:0:7", "Subject Key Identifier", "Authority Key Identifier" };
    for (size_t i = 0; i < ARRAY_SIZE(want); i++)
        must_contain(text, want[i]);
    const char *ou = strstr(text, "OU = "); // the issuer's, then the subject's: the same UUID
    assert_int_equal(sscanf(ou, "OU = %200s", cluster), 1);
    assert_non_null(strstr(strstr(ou + 5, "Subject:"), cluster));

    const struct {
        const char *file, *purpose, *host;
        int status;
    } verdicts[] = {
        { both, "sslserver", "localhost", 0 }, { both, "sslclient", "control.example", 0 }, { both, "sslserver", "other.example", 2 },
        { client, "sslclient", "localhost", 0 }, { client, "sslserver", "localhost", 2 },
    };
    for (size_t i = 0; i < ARRAY_SIZE(verdicts); i++)
        assert_int_equal(openssl_run((const char *const[]){ "verify", "-x509_strict", "-CAfile", ca, "-purpose", verdicts[i].purpose,
                                         "-verify_hostname", verdicts[i].host, verdicts[i].file, NULL }, text, sizeof text),
                         verdicts[i].status);
    // Already valid where the clock is 23 hours behind; not outliving its CA of 30 days, although 365 were asked for.
    assert_int_equal(openssl_run((const char *const[]){ "x509", "-in", both, "-noout", "-checkend", "2505600", NULL }, text, sizeof text), 0);
    assert_int_equal(openssl_run((const char *const[]){ "x509", "-in", both, "-noout", "-checkend", "2678400", NULL }, text, sizeof text), 1);
    AUTO(free) char *behind = xasprintf("%lld", (long long)time(NULL) - 23 * 3600);
    assert_int_equal(openssl_run((const char *const[]){ "verify", "-attime", behind, "-CAfile", ca, both, NULL }, text, sizeof text), 0);
    assert_int_equal(openssl_run((const char *const[]){ "pkey", "-in", key, "-noout", "-check", NULL }, text, sizeof text), 0);
}

static void serials_differ(void **state)
{
    (void)state;
    struct error e;
    char text[2][256];
    must(pki_make_ca(dir, "c", 30, &e), &e);
    static const char *const files[] = { "a", "b" };
    for (size_t i = 0; i < 2; i++) {
        make(files[i], "user-a", PKI_CLIENT);
        AUTO(free) char *crt = xasprintf("%s/%s.crt", dir, files[i]);
        assert_int_equal(openssl_run((const char *const[]){ "x509", "-in", crt, "-noout", "-serial", NULL }, text[i], sizeof text[i]), 0);
        assert_int_equal(strlen(text[i]), strlen("serial=") + 32 + 1);
    }
    assert_string_not_equal(text[0], text[1]);
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    struct error e;
    static const char *const bad_dns[] = { "a b", NULL }, *const empty[] = { "", NULL }, *const bad_ip[] = { "1.2.3", NULL };
    static const char long_name[] = "user-0123456789012345678901234567890123456789012345678901234567890123456789";
    must(pki_make_ca(dir, "c", 30, &e), &e);
    const struct pki_request bad[] = {
        { .common_name = "", .use = PKI_CLIENT, .days = 1 },
        { .common_name = long_name, .use = PKI_CLIENT, .days = 1 },
        { .common_name = "\xff\xfe", .use = PKI_CLIENT, .days = 1 },
        { .common_name = "a", .use = 0, .days = 1 },
        { .common_name = "a", .use = 4, .days = 1 },
        { .common_name = "a", .use = PKI_CLIENT, .days = 0 },
        { .common_name = "a", .use = PKI_CLIENT, .days = -1 },
        { .common_name = "a", .use = PKI_CLIENT, .days = 40000 },
        { .common_name = "a", .use = PKI_CLIENT, .days = 1, .dns = bad_dns },
        { .common_name = "a", .use = PKI_CLIENT, .days = 1, .dns = empty },
        { .common_name = "a", .use = PKI_CLIENT, .days = 1, .ip = bad_ip },
        { .common_name = "a", .use = PKI_CLIENT, .days = 1, .ip = bad_dns },
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        if (pki_make_certificate(dir, dir, "bad", &bad[i], &e) != -E_INVALID)
            fail_msg("request %zu is not refused as it should be", i);
        assert_false(pki_has(dir, "bad"));
    }
}

static void contexts_need_a_matching_pair(void **state)
{
    (void)state;
    struct error e;
    struct ssl_ctx_st *ctx = NULL;
    must(pki_make_ca(dir, "c", 30, &e), &e);
    make("a", "user-a", PKI_CLIENT | PKI_SERVER);
    make("b", "user-b", PKI_CLIENT);
    AUTO(free) char *ca = at("cluster.crt");
    AUTO(free) char *a_crt = at("a.crt");
    AUTO(free) char *a_key = at("a.key");
    AUTO(free) char *b_key = at("b.key");
    AUTO(free) char *missing = at("missing");
    must(pki_server_context(ca, a_crt, a_key, &ctx, &e), &e);
    assert_int_equal(SSL_CTX_get_min_proto_version(ctx), TLS1_2_VERSION);
    assert_int_equal(SSL_CTX_get_verify_mode(ctx), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT);
    SSL_CTX_free(ctx);
    must(pki_client_context(ca, a_crt, a_key, &ctx, &e), &e);
    assert_int_equal(SSL_CTX_get_verify_mode(ctx), SSL_VERIFY_PEER);
    SSL_CTX_free(ctx);
    ctx = NULL;
    assert_int_equal(pki_server_context(ca, a_crt, b_key, &ctx, &e), -E_INVALID);
    assert_int_equal(pki_server_context(missing, a_crt, a_key, &ctx, &e), -E_NOT_FOUND);
    assert_int_equal(pki_server_context(ca, missing, a_key, &ctx, &e), -E_NOT_FOUND);
    assert_int_equal(pki_server_context(ca, a_crt, missing, &ctx, &e), -E_NOT_FOUND);
    assert_int_equal(pki_server_context(a_key, a_crt, a_key, &ctx, &e), -E_CORRUPT);
    assert_int_equal(pki_server_context(ca, a_crt, a_crt, &ctx, &e), -E_CORRUPT);
    assert_null(ctx);
}

// A pair whose halves belong to different CAs signs nothing.
static void a_ca_must_be_one(void **state)
{
    (void)state;
    struct error e;
    struct pki_request r = { .common_name = "x", .use = PKI_CLIENT, .days = 1 };
    AUTO(free) char *other = at("other");
    AUTO(free) char *from = at("cluster.key");
    AUTO(free) char *to = at("other/cluster.key");
    assert_int_equal(mkdir(other, 0700), 0);
    must(pki_make_ca(dir, "c", 30, &e), &e);
    must(pki_make_ca(other, "c", 30, &e), &e);
    assert_int_equal(rename(from, to), 0);
    assert_int_equal(pki_make_certificate(other, dir, "x", &r, &e), -E_CORRUPT);
    assert_false(pki_has(dir, "x"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, enter, leave)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(files_come_whole_and_are_never_overwritten),
        TEST(names_read_back),
        TEST(openssl_agrees_about_the_ca),
        TEST(openssl_agrees_about_certificates),
        TEST(serials_differ),
        TEST(what_cannot_be_is_refused),
        TEST(contexts_need_a_matching_pair),
        TEST(a_ca_must_be_one),
    };
    return RUN_TESTS(tests);
}
