// Certificates: what is made is what was asked for, by our own reading and by that of the openssl program; nothing is overwritten.
#include "test.h"

#include "base/mem.h"
#include "net/pki.h"
#include "net/token.h"

#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

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

// ---- handshakes

// One handshake between the two contexts. Whether both sides are content, after the client has read what the server says to its certificate.
static bool shake_hands(SSL_CTX *server, SSL_CTX *client, char *ret_name, size_t n)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    SSL *ends[2] = { SSL_new(server), SSL_new(client) };
    bool is_done = false, has_failed = false;
    for (int i = 0; i < 2; i++)
        SSL_set_fd(ends[i], fds[i]);
    for (int turn = 0; turn < 50 && !is_done && !has_failed; turn++) {
        char byte;
        int rc[2] = { SSL_accept(ends[0]), SSL_connect(ends[1]) };
        for (int i = 0; i < 2; i++) {
            int why = rc[i] == 1 ? SSL_ERROR_NONE : SSL_get_error(ends[i], rc[i]);
            has_failed |= why != SSL_ERROR_NONE && why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE;
        }
        if (rc[0] == 1 && rc[1] == 1) {
            is_done = true;
            has_failed = SSL_write(ends[0], "x", 1) != 1 || SSL_read(ends[1], &byte, 1) != 1;
        }
        ERR_clear_error();
    }
    X509 *shown = SSL_get0_peer_certificate(ends[0]);
    ret_name[0] = '\0';
    if (shown)
        X509_NAME_get_text_by_NID(X509_get_subject_name(shown), NID_commonName, ret_name, (int)n);
    for (int i = 0; i < 2; i++) {
        SSL_free(ends[i]);
        close(fds[i]);
    }
    return is_done && !has_failed;
}

static SSL_CTX *context_of(bool is_server, const char *file)
{
    struct error e;
    SSL_CTX *ret = NULL;
    AUTO(free) char *ca = at("cluster.crt"), *crt = xasprintf("%s/%s.crt", dir, file), *key = xasprintf("%s/%s.key", dir, file);
    must((is_server ? pki_server_context : pki_client_context)(ca, crt, key, &ret, &e), &e);
    return ret;
}

static void make_control(void)
{
    static const char *const dns[] = { PKI_CONTROL_NAME, NULL };
    struct error e;
    const struct pki_request r = { .common_name = PKI_CONTROL_NAME, .use = PKI_SERVER, .dns = dns, .days = 30 };
    must(pki_make_ca(dir, "c", 300, &e), &e);
    must(pki_make_certificate(dir, dir, "control-service", &r, &e), &e);
}

static void a_client_may_be_anonymous_where_that_is_allowed(void **state)
{
    (void)state;
    char name[64];
    struct error e;
    uint8_t fingerprint[PKI_FINGERPRINT_SIZE];
    make_control();
    make("node", "node-1", PKI_CLIENT);
    must(pki_fingerprint(dir, "cluster", fingerprint, &e), &e);
    SSL_CTX *server = context_of(true, "control-service"), *node = context_of(false, "node"), *pinned = NULL;
    must(pki_pinned_context(fingerprint, PKI_CONTROL_NAME, &pinned, &e), &e);
    assert_false(shake_hands(server, pinned, name, sizeof name));
    pki_allow_anonymous(server);
    assert_true(shake_hands(server, pinned, name, sizeof name));
    assert_string_equal(name, "");
    must(pki_expect_name(node, PKI_CONTROL_NAME, &e), &e);
    assert_true(shake_hands(server, node, name, sizeof name));
    assert_string_equal(name, "node-1");
    SSL_CTX_free(pinned);
    SSL_CTX_free(node);
    SSL_CTX_free(server);
}

// The fingerprint alone decides which CA it is, and the name which of its certificates.
static void a_pinned_server_must_be_the_right_one(void **state)
{
    (void)state;
    char name[64];
    struct error e;
    uint8_t fingerprint[PKI_FINGERPRINT_SIZE], other[PKI_FINGERPRINT_SIZE];
    make_control();
    make("else", "control-service", PKI_SERVER); // by its CN alone
    make("client", "user-x", PKI_CLIENT);
    must(pki_fingerprint(dir, "cluster", fingerprint, &e), &e);
    must(pki_fingerprint(dir, "control-service", other, &e), &e);
    SSL_CTX *right = context_of(true, "control-service"), *unnamed = context_of(true, "else"), *client = NULL, *wrong = NULL;
    pki_allow_anonymous(right);
    pki_allow_anonymous(unnamed);
    must(pki_pinned_context(fingerprint, PKI_CONTROL_NAME, &client, &e), &e);
    assert_true(shake_hands(right, client, name, sizeof name));
    assert_false(shake_hands(unnamed, client, name, sizeof name));
    fingerprint[31] ^= 1;
    must(pki_pinned_context(fingerprint, PKI_CONTROL_NAME, &wrong, &e), &e);
    assert_false(shake_hands(right, wrong, name, sizeof name));
    SSL_CTX_free(wrong);
    must(pki_pinned_context(other, PKI_CONTROL_NAME, &wrong, &e), &e); // a certificate of that CA is not that CA
    assert_false(shake_hands(right, wrong, name, sizeof name));
    SSL_CTX_free(wrong);
    SSL_CTX_free(client);
    SSL_CTX_free(right);
    SSL_CTX_free(unnamed);
}

// ---- requests and renewal

static void a_request_becomes_a_certificate(void **state)
{
    (void)state;
    struct error e;
    char name[64];
    const struct pki_request r = { .common_name = "node-7", .use = PKI_CLIENT | PKI_SERVER, .days = 10 };
    must(pki_make_ca(dir, "c", 300, &e), &e);
    AUTO(free) char *request = NULL, *again = NULL, *certificate = NULL, *crt = at("new.crt"), *key = at("new.key");
    must(pki_make_request(dir, "new", &request, &e), &e);
    assert_int_equal(mode_of("new.key"), 0600);
    must(pki_make_request(dir, "new", &again, &e), &e); // for the key that is there
    must(pki_sign(dir, request, strlen(request), &r, &certificate, &e), &e);
    must(pki_install(dir, "new", certificate, &e), &e);
    must(pki_common_name(crt, name, sizeof name, &e), &e);
    assert_string_equal(name, "node-7");
    free(certificate);
    certificate = NULL;
    must(pki_sign(dir, again, strlen(again), &r, &certificate, &e), &e);
    must(pki_install(dir, "new", certificate, &e), &e); // in place of the first
    make("other", "node-8", PKI_CLIENT);
    assert_int_equal(pki_install(dir, "other", certificate, &e), -E_INVALID);
    assert_int_equal(pki_install(dir, "other", "x", &e), -E_INVALID);
    assert_int_equal(pki_install(dir, "nowhere", certificate, &e), -E_NOT_FOUND);

    AUTO(free) char *large = xasprintf("%s%*s", request, 9000, "");
    AUTO(free) char *forged = xstrdup(request);
    char *middle = strchr(forged, '\n') + 150; // in the signature or the key: neither makes sense any more
    *middle = *middle == 'A' ? 'B' : 'A';
    const struct {
        const char *text;
        int rc;
    } bad[] = { { "", -E_INVALID }, { "x", -E_INVALID }, { certificate, -E_INVALID }, { large, -E_INVALID } };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        char *unset = NULL;
        assert_int_equal(pki_sign(dir, bad[i].text, strlen(bad[i].text), &r, &unset, &e), bad[i].rc);
        assert_null(unset);
    }
    char *unset = NULL;
    assert_true(pki_sign(dir, forged, strlen(forged), &r, &unset, &e) < 0);
    AUTO(free) char *ca_key = at("cluster.key");
    assert_int_equal(unlink(ca_key), 0);
    assert_int_equal(pki_sign(dir, request, strlen(request), &r, &unset, &e), -E_NOT_FOUND);
    assert_null(unset);
}

// Keys that whoever checks them would regret.
static void weak_and_huge_keys_are_not_certified(void **state)
{
    (void)state;
    struct error e;
    const struct pki_request r = { .common_name = "x", .use = PKI_CLIENT, .days = 10 };
    must(pki_make_ca(dir, "c", 300, &e), &e);
    EVP_PKEY *const keys[] = { EVP_RSA_gen(1024), EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"), EVP_EC_gen("secp224r1"), EVP_EC_gen("P-384"),
                               EVP_RSA_gen(2048) };
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        AUTO(free) char *path = at("k.key"), *request = NULL, *certificate = NULL;
        FILE *f = fopen(path, "we");
        assert_int_equal(PEM_write_PrivateKey(f, keys[i], NULL, NULL, 0, NULL, NULL), 1);
        assert_int_equal(fclose(f), 0);
        bool is_good = i >= 3;
        int rc = pki_make_request(dir, "k", &request, &e);
        assert_true(rc == 0 || !is_good);
        if (rc == 0)
            assert_int_equal(pki_sign(dir, request, strlen(request), &r, &certificate, &e), is_good ? 0 : -E_INVALID);
        EVP_PKEY_free(keys[i]);
    }
}

static void renewal_keeps_all_but_the_time(void **state)
{
    (void)state;
    struct error e;
    struct pki_life life;
    char text[8192], name[64];
    make_control();
    must(pki_life(dir, "control-service", &life, &e), &e);
    assert_in_range(life.left_s, 30 * 86400 - 60, 30 * 86400);
    assert_in_range(life.whole_s, 60 * 86400, 60 * 86400);
    assert_false(pki_is_due(&life));
    assert_true(pki_is_due(&(struct pki_life){ .whole_s = 300, .left_s = 99 }));
    assert_true(pki_is_due(&(struct pki_life){ .whole_s = 300, .left_s = -1 }));
    assert_false(pki_is_due(&(struct pki_life){ .whole_s = 300, .left_s = 100 }));
    SSL_CTX *server = context_of(true, "control-service"), *client = NULL;
    uint8_t before[PKI_FINGERPRINT_SIZE], after[PKI_FINGERPRINT_SIZE], ca[PKI_FINGERPRINT_SIZE];
    must(pki_fingerprint(dir, "control-service", before, &e), &e);
    char key_before[PKI_KEY_SIZE], key_after[PKI_KEY_SIZE];
    AUTO(free) char *renewed = at("control-service.crt");
    must(pki_key_digest(renewed, key_before, &e), &e);
    must(pki_renew(dir, dir, "control-service", 200, &e), &e);
    must(pki_key_digest(renewed, key_after, &e), &e);
    assert_string_equal(key_before, key_after);
    assert_int_equal(strspn(key_after, "0123456789abcdef"), PKI_KEY_SIZE - 1);
    must(pki_fingerprint(dir, "control-service", after, &e), &e);
    assert_memory_not_equal(before, after, sizeof before);
    must(pki_life(dir, "control-service", &life, &e), &e);
    assert_in_range(life.left_s, 200 * 86400 - 60, 200 * 86400);

    // A context takes it into use, and refuses what is no pair.
    AUTO(free) char *crt = at("control-service.crt"), *key = at("control-service.key"), *other = at("cluster.key");
    assert_int_equal(pki_reload(server, crt, other, &e), -E_INVALID);
    must(pki_fingerprint(dir, "cluster", ca, &e), &e);
    must(pki_pinned_context(ca, PKI_CONTROL_NAME, &client, &e), &e);
    pki_allow_anonymous(server);
    assert_true(shake_hands(server, client, name, sizeof name));
    must(pki_reload(server, crt, key, &e), &e);
    X509 *in_use = SSL_CTX_get0_certificate(server);
    assert_int_equal(X509_digest(in_use, EVP_sha256(), before, NULL), 1);
    assert_memory_equal(before, after, sizeof after);
    assert_true(shake_hands(server, client, name, sizeof name));
    SSL_CTX_free(server);
    SSL_CTX_free(client);

    assert_int_equal(openssl_run((const char *const[]){ "x509", "-in", crt, "-noout", "-text", NULL }, text, sizeof text), 0);
    must_contain(text, "DNS:control-service");
    must_contain(text, "TLS Web Server Authentication");
    assert_null(strstr(text, "Client Authentication"));

    // Another CA can't take it over, whatever it is called.
    AUTO(free) char *other_dir = at("other");
    assert_int_equal(mkdir(other_dir, 0700), 0);
    must(pki_make_ca(other_dir, "c", 300, &e), &e);
    assert_int_equal(pki_renew(other_dir, dir, "control-service", 200, &e), -E_DENIED);
}

static void the_cluster_comes_by_its_fingerprint(void **state)
{
    (void)state;
    struct error e;
    uint8_t fingerprint[PKI_FINGERPRINT_SIZE], copy[PKI_FINGERPRINT_SIZE];
    AUTO(free) char *other = at("other"), *text = NULL;
    must(pki_make_ca(dir, "c", 300, &e), &e);
    must(pki_fingerprint(dir, "cluster", fingerprint, &e), &e);
    must(pki_read_text(dir, "cluster", &text, &e), &e);
    assert_int_equal(mkdir(other, 0700), 0);
    must(pki_install_ca(other, text, fingerprint, &e), &e);
    must(pki_fingerprint(other, "cluster", copy, &e), &e);
    assert_memory_equal(copy, fingerprint, sizeof copy);
    fingerprint[0] ^= 1;
    assert_int_equal(pki_install_ca(other, text, fingerprint, &e), -E_DENIED);
    assert_int_equal(pki_install_ca(other, "", fingerprint, &e), -E_INVALID);
}

// ---- what the original Flocker made: RSA, marked version 1 in spite of its extensions

static void add_text(X509 *certificate, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert_non_null(extension);
    assert_int_equal(X509_add_ext(certificate, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

static X509 *make_original(const char *file, const char *name, X509 *issuer, EVP_PKEY *issuer_key, EVP_PKEY **ret_key)
{
    AUTO(free) char *crt = xasprintf("%s/%s.crt", dir, file), *key_path = xasprintf("%s/%s.key", dir, file);
    EVP_PKEY *key = EVP_RSA_gen(2048);
    X509 *x = X509_new();
    X509_set_version(x, 0);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 77);
    X509_gmtime_adj(X509_getm_notBefore(x), 0);
    X509_gmtime_adj(X509_getm_notAfter(x), 20L * 365 * 86400);
    X509_set_pubkey(x, key);
    X509_NAME *subject = X509_get_subject_name(x);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_NAME_add_entry_by_txt(subject, "OU", MBSTRING_ASC, (const unsigned char *)"1c2d3e4f-5a6b-4c7d-8e9f-0a1b2c3d4e5f", -1, -1, 0);
    X509_set_issuer_name(x, issuer ? X509_get_subject_name(issuer) : subject);
    if (!issuer) {
        add_text(x, x, NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
        add_text(x, x, NID_key_usage, "critical,keyCertSign,cRLSign");
        add_text(x, x, NID_subject_key_identifier, "hash");
        add_text(x, x, NID_authority_key_identifier, "keyid:always");
    }
    if (strcmp(name, PKI_CONTROL_NAME) == 0)
        add_text(x, issuer, NID_subject_alt_name, "DNS:control-service,DNS:old.example");
    if (strncmp(name, "user-", 5) == 0)
        add_text(x, issuer, NID_ext_key_usage, "clientAuth");
    assert_true(X509_sign(x, issuer_key ? issuer_key : key, EVP_sha256()) > 0);
    FILE *f = fopen(crt, "we");
    PEM_write_X509(f, x);
    assert_int_equal(fclose(f), 0);
    f = fopen(key_path, "we");
    PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
    assert_int_equal(fclose(f), 0);
    *ret_key = key;
    return x;
}

static ASN1_TIME *beginning_of(const char *file)
{
    AUTO(free) char *path = at(file);
    FILE *f = fopen(path, "re");
    X509 *x = PEM_read_X509(f, NULL, NULL, NULL);
    ASN1_TIME *ret = ASN1_STRING_dup(X509_get0_notBefore(x));
    X509_free(x);
    assert_int_equal(fclose(f), 0);
    return ret;
}

// So that no clock that is behind, or was ahead when it was signed, finds it not yet valid. How long it is good does not grow by that.
static void what_is_signed_begins_with_its_authority(void **state)
{
    (void)state;
    struct error e;
    struct pki_life life;
    EVP_PKEY *ca_key = NULL, *key = NULL;
    AUTO(free) char *pem = at("cluster.crt"), *other = at("other");
    X509 *ca = make_original("cluster", "old cluster", NULL, NULL, &ca_key);
    X509_gmtime_adj(X509_getm_notBefore(ca), -5000L * 86400);
    assert_true(X509_sign(ca, ca_key, EVP_sha256()) > 0);
    FILE *f = fopen(pem, "we");
    PEM_write_X509(f, ca);
    assert_int_equal(fclose(f), 0);
    X509_free(make_original("node", "node-5f0dfb6c-9c8e-4c3d-8b42-7ae0b1c2d3e4", ca, ca_key, &key));
    must(pki_renew(dir, dir, "node", PKI_DAYS, &e), &e);
    ASN1_TIME *of_ca = beginning_of("cluster.crt"), *of_node = beginning_of("node.crt");
    assert_int_equal(ASN1_TIME_compare(of_ca, of_node), 0);
    must(pki_life(dir, "node", &life, &e), &e);
    assert_int_equal(life.whole_s, PKI_DAYS * 86400);
    assert_in_range(life.left_s, PKI_DAYS * 86400 - 60, PKI_DAYS * 86400);
    assert_false(pki_is_due(&life));

    // By a clock that says that the cluster has not begun nothing can be signed that is good later.
    X509_gmtime_adj(X509_getm_notBefore(ca), 86400);
    assert_true(X509_sign(ca, ca_key, EVP_sha256()) > 0);
    f = fopen(pem, "we");
    PEM_write_X509(f, ca);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(pki_renew(dir, dir, "node", PKI_DAYS, &e), -E_UNAVAILABLE);
    must_contain(e.msg, "this host's clock says 20");
    ASN1_TIME_free(of_ca);
    ASN1_TIME_free(of_node);
    X509_free(ca);
    EVP_PKEY_free(ca_key);
    EVP_PKEY_free(key);
}

static void what_depends_on_time_tells_the_clock(void **state)
{
    (void)state;
    char why[PKI_WHY_SIZE];
    must_contain(pki_why_not(X509_V_ERR_CERT_HAS_EXPIRED, why), "expired by this host's clock, which says 20");
    must_contain(pki_why_not(X509_V_ERR_CERT_NOT_YET_VALID, why), "not yet valid by this host's clock, which says 20");
    assert_null(strstr(pki_why_not(X509_V_ERR_CERT_REVOKED, why), "clock"));
    must_contain(pki_why_refused(SSL_AD_REASON_OFFSET + SSL_AD_CERTIFICATE_EXPIRED, "x", why), "expired by its clock; this host's says 20");
    must_contain(pki_why_refused(SSL_AD_REASON_OFFSET + SSL_AD_BAD_CERTIFICATE, "x", why), "x, or its clock is behind; this host's says 20");
    assert_string_equal(pki_why_refused(SSL_AD_REASON_OFFSET + SSL_AD_UNKNOWN_CA, "unknown", why), "unknown");
    assert_string_equal(pki_why_refused(1, NULL, why), "no reason given");
}

static void certificates_of_the_original_are_taken(void **state)
{
    (void)state;
    struct error e;
    char name[64];
    static const char *const files[] = { "control-service", "node", "user" };
    static const char *const names[] = { PKI_CONTROL_NAME, "node-5f0dfb6c-9c8e-4c3d-8b42-7ae0b1c2d3e4", "user-bob" };
    EVP_PKEY *ca_key = NULL;
    X509 *ca = make_original("cluster", "old cluster", NULL, NULL, &ca_key);
    for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
        EVP_PKEY *key = NULL;
        X509_free(make_original(files[i], names[i], ca, ca_key, &key));
        EVP_PKEY_free(key);
    }
    make("new", "node-new", PKI_CLIENT); // by the old CA, of the new kind
    SSL_CTX *server = context_of(true, "control-service");
    static const char *const clients[] = { "node", "user", "new" };
    for (size_t i = 0; i < ARRAY_SIZE(clients); i++) {
        SSL_CTX *client = context_of(false, clients[i]);
        must(pki_expect_name(client, PKI_CONTROL_NAME, &e), &e);
        assert_true(shake_hands(server, client, name, sizeof name));
        assert_string_equal(name, i < 2 ? names[i + 1] : "node-new");
        SSL_CTX_free(client);
    }
    // Such a certificate is renewed into one of version 3, with the names and the key that it had.
    must(pki_renew(dir, dir, "control-service", 30, &e), &e);
    SSL_CTX *renewed = context_of(true, "control-service"), *client = context_of(false, "node");
    assert_int_equal(X509_get_version(SSL_CTX_get0_certificate(renewed)), 2);
    must(pki_expect_name(client, "old.example", &e), &e);
    assert_true(shake_hands(renewed, client, name, sizeof name));
    SSL_CTX_free(renewed);
    SSL_CTX_free(client);
    SSL_CTX_free(server);
    X509_free(ca);
    EVP_PKEY_free(ca_key);
}

// ---- join tokens

static void tokens_read_back(void **state)
{
    (void)state;
    struct token t, back;
    char text[TOKEN_TEXT_SIZE];
    for (unsigned i = 0; i < 256; i++) { // each byte, so each character of the code
        memset(&t, (int)i, sizeof t);
        t.secret[3] = (uint8_t)(i * 7);
        assert_string_equal(token_format(&t, text), text);
        assert_int_equal(strlen(text), TOKEN_TEXT_SIZE - 1);
        assert_int_equal(strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."), TOKEN_TEXT_SIZE - 1);
        assert_true(token_parse(text, &back));
        assert_memory_equal(&back, &t, sizeof t);
    }
    struct uuid one = token_digest(t.secret);
    t.secret[0] ^= 1;
    struct uuid other = token_digest(t.secret);
    assert_false(uuid_equal(&one, &other));
    AUTO(free) char *longer = xasprintf("%sA", text), *broken = xstrdup(text);
    broken[20] = '=';
    const char *const bad[] = { "", "join1.", "join2.AAAA", longer, broken, text + 6 };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_false(token_parse(bad[i], &back));
    text[TOKEN_TEXT_SIZE - 2] = '\0';
    assert_false(token_parse(text, &back));
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
        TEST(a_client_may_be_anonymous_where_that_is_allowed),
        TEST(a_pinned_server_must_be_the_right_one),
        TEST(a_request_becomes_a_certificate),
        TEST(weak_and_huge_keys_are_not_certified),
        TEST(renewal_keeps_all_but_the_time),
        TEST(the_cluster_comes_by_its_fingerprint),
        TEST(what_is_signed_begins_with_its_authority),
        TEST(what_depends_on_time_tells_the_clock),
        TEST(certificates_of_the_original_are_taken),
        TEST(tokens_read_back),
    };
    return RUN_TESTS(tests);
}
