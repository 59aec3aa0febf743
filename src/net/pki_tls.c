// TLS contexts.
#include "net/pki_internal.h"

#include "base/clock.h"

#include <string.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

DEFINE_AUTO(SSL_CTX *, SSL_CTX_free)

bool pki_is_about_time(long verdict)
{
    return verdict == X509_V_ERR_CERT_HAS_EXPIRED || verdict == X509_V_ERR_CERT_NOT_YET_VALID;
}

const char *pki_why_not(long verdict, char ret[PKI_WHY_SIZE])
{
    char now[CLOCK_TEXT_SIZE];
    const char *text = X509_verify_cert_error_string(verdict);
    if (pki_is_about_time(verdict))
        snprintf(ret, PKI_WHY_SIZE, "%s by this host's clock, which says %.10s: is that right?", text, clock_format(clock_wall_ms(), now));
    else
        snprintf(ret, PKI_WHY_SIZE, "%s", text);
    return ret;
}

const char *pki_why_refused(int reason, const char *text, char ret[PKI_WHY_SIZE])
{
    char now[CLOCK_TEXT_SIZE];
    if (reason == SSL_AD_REASON_OFFSET + SSL_AD_CERTIFICATE_EXPIRED)
        snprintf(ret, PKI_WHY_SIZE, "certificate has expired by its clock; this host's says %.10s: do they agree?", clock_format(clock_wall_ms(), now));
    else if (reason == SSL_AD_REASON_OFFSET + SSL_AD_BAD_CERTIFICATE) // of one that is not yet valid OpenSSL says no more than that
        snprintf(ret, PKI_WHY_SIZE, "%s, or its clock is behind; this host's says %.10s", text, clock_format(clock_wall_ms(), now));
    else
        snprintf(ret, PKI_WHY_SIZE, "%s", text ? text : "no reason given");
    return ret;
}

// Loads a pair and one's own CA, and nothing of the system's.
static int load_pair(SSL_CTX *ctx, const char *ca, const char *certificate, const char *key, struct error *e)
{
    AUTO(X509_free) X509 *ca_certificate = NULL, *own = NULL;
    AUTO(EVP_PKEY_free) EVP_PKEY *own_key = NULL;
    int rc = pki_read_certificate(ca, &ca_certificate, e);
    if (rc < 0 || (rc = pki_read_certificate(certificate, &own, e)) < 0 || (rc = pki_read_key(key, &own_key, e)) < 0)
        return rc;
    if (!X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), ca_certificate))
        return fail_ctx(e, pki_fail(e, E_INVALID, "not usable as a CA"), "%s", ca);
    if (SSL_CTX_use_certificate(ctx, own) != 1)
        return fail_ctx(e, pki_fail(e, E_INVALID, "not usable as a certificate"), "%s", certificate);
    if (SSL_CTX_use_PrivateKey(ctx, own_key) != 1 || SSL_CTX_check_private_key(ctx) != 1)
        return fail_ctx(e, pki_fail(e, E_INVALID, "not the certificate's key"), "%s", key);
    if (SSL_CTX_add_client_CA(ctx, ca_certificate) != 1)
        return fail_ctx(e, pki_fail(e, E_IO, "cannot be named to clients"), "%s", ca);
    return 0;
}

static int new_context(const SSL_METHOD *method, int verify, SSL_CTX **ret, struct error *e)
{
    AUTO(SSL_CTX_free) SSL_CTX *ctx = SSL_CTX_new(method);
    if (!ctx || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1)
        return pki_fail(e, E_IO, "make a TLS context");
    // No resumption: every connection shows its certificate, and nothing is kept of those that have ended.
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(ctx, 0);
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_verify(ctx, verify, NULL);
    SSL_CTX_set_verify_depth(ctx, 1);
    *ret = TAKE(ctx, NULL);
    return 0;
}

static int make_context(const SSL_METHOD *method, int verify, const char *ca, const char *certificate, const char *key,
                        struct ssl_ctx_st **ret, struct error *e)
{
    AUTO(SSL_CTX_free) SSL_CTX *ctx = NULL;
    int rc = new_context(method, verify, &ctx, e);
    if (rc < 0)
        return rc;
    rc = load_pair(ctx, ca, certificate, key, e);
    if (rc < 0)
        return rc;
    *ret = TAKE(ctx, NULL);
    return 0;
}

int pki_server_context(const char *ca, const char *certificate, const char *key, struct ssl_ctx_st **ret, struct error *e)
{
    return make_context(TLS_server_method(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, ca, certificate, key, ret, e);
}

int pki_client_context(const char *ca, const char *certificate, const char *key, struct ssl_ctx_st **ret, struct error *e)
{
    return make_context(TLS_client_method(), SSL_VERIFY_PEER, ca, certificate, key, ret, e);
}

void pki_allow_anonymous(struct ssl_ctx_st *ctx)
{
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
}

int pki_expect_name(struct ssl_ctx_st *ctx, const char *name, struct error *e)
{
    X509_VERIFY_PARAM *param = SSL_CTX_get0_param(ctx);
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    if (X509_VERIFY_PARAM_set1_host(param, name, 0) != 1)
        return pki_fail(e, E_INVALID, "not a name that a certificate can hold");
    return 0;
}

int pki_reload(struct ssl_ctx_st *ctx, const char *certificate, const char *key, struct error *e)
{
    AUTO(X509_free) X509 *own = NULL;
    AUTO(EVP_PKEY_free) EVP_PKEY *own_key = NULL;
    int rc = pki_read_certificate(certificate, &own, e);
    if (rc < 0 || (rc = pki_read_key(key, &own_key, e)) < 0)
        return rc;
    if (SSL_CTX_use_cert_and_key(ctx, own, own_key, NULL, 1) != 1)
        return fail_ctx(e, pki_fail(e, E_INVALID, "not usable with its key"), "%s", certificate);
    return 0;
}

// ---- a server that is known by its CA's fingerprint alone

// The pinned CA, if the server has sent it, is the only one that is trusted; all else is OpenSSL's verification.
static int verify_pinned(X509_STORE_CTX *store, void *fingerprint)
{
    STACK_OF(X509) *chain = X509_STORE_CTX_get0_untrusted(store), *trusted = sk_X509_new_null();
    if (!trusted)
        return 0;
    for (int i = 0; i < sk_X509_num(chain); i++) {
        uint8_t digest[PKI_FINGERPRINT_SIZE];
        X509 *certificate = sk_X509_value(chain, i);
        if (X509_digest(certificate, EVP_sha256(), digest, NULL) && memcmp(digest, fingerprint, sizeof digest) == 0)
            sk_X509_push(trusted, certificate);
    }
    X509_STORE_CTX_set0_trusted_stack(store, trusted);
    int ok = X509_verify_cert(store);
    X509_STORE_CTX_set0_trusted_stack(store, NULL);
    sk_X509_free(trusted);
    return ok;
}

static void free_fingerprint(void *parent, void *fingerprint, CRYPTO_EX_DATA *data, int index, long n, void *arg)
{
    (void)parent, (void)data, (void)index, (void)n, (void)arg;
    OPENSSL_free(fingerprint);
}

int pki_pinned_context(const uint8_t fingerprint[PKI_FINGERPRINT_SIZE], const char *name, struct ssl_ctx_st **ret, struct error *e)
{
    static int owned = -1; // the context's slot for its copy of the fingerprint
    if (owned < 0)
        owned = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_fingerprint);
    AUTO(SSL_CTX_free) SSL_CTX *ctx = NULL;
    void *copy = OPENSSL_memdup(fingerprint, PKI_FINGERPRINT_SIZE);
    int rc = new_context(TLS_client_method(), SSL_VERIFY_PEER, &ctx, e);
    if (rc < 0 || !copy || owned < 0 || !SSL_CTX_set_ex_data(ctx, owned, copy)) {
        OPENSSL_free(copy);
        return rc < 0 ? rc : pki_fail(e, E_IO, "make a TLS context");
    }
    SSL_CTX_set_cert_verify_callback(ctx, verify_pinned, copy);
    if ((rc = pki_expect_name(ctx, name, e)) < 0)
        return rc;
    *ret = TAKE(ctx, NULL);
    return 0;
}
