// Certificates for others: a key stays where it was made, only a request (PKCS #10) and the certificate travel. And their renewal.
#include "net/pki_internal.h"

#include "base/limits.h"

#include <errno.h>
#include <string.h>

#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#define RSA_BITS_MIN 2048
#define RSA_BITS_MAX 8192 // a larger one costs whoever checks its signatures too much

DEFINE_AUTO(X509_REQ *, X509_REQ_free)

static char *path_of(const char *dir, const char *file, const char *suffix)
{
    return xasprintf("%s/%s.%s", dir, file, suffix);
}

static char *text_of(BIO *from)
{
    char *data = NULL;
    long n = BIO_get_mem_data(from, &data);
    return xstrndup(data, (size_t)n);
}

// ---- asking

static int make_key(const char *dir, const char *file, EVP_PKEY **ret, struct error *e)
{
    AUTO(EVP_PKEY_free) EVP_PKEY *key = EVP_EC_gen("P-256");
    AUTO(BIO_free_all) BIO *text = BIO_new(BIO_s_secmem());
    if (!key || !text || !PEM_write_bio_PrivateKey(text, key, NULL, NULL, 0, NULL, NULL))
        return pki_fail(e, E_IO, "make a key");
    int rc = pki_write_file(dir, file, "key", 0600, false, text, e);
    if (rc == 0)
        *ret = TAKE(key, NULL);
    return rc;
}

int pki_make_request(const char *dir, const char *file, char **ret, struct error *e)
{
    AUTO(free) char *key_path = path_of(dir, file, "key");
    AUTO(EVP_PKEY_free) EVP_PKEY *key = NULL;
    AUTO(X509_REQ_free) X509_REQ *request = X509_REQ_new();
    AUTO(BIO_free_all) BIO *text = BIO_new(BIO_s_mem());
    int rc = access(key_path, F_OK) == 0 ? pki_read_key(key_path, &key, e) : make_key(dir, file, &key, e);
    if (rc < 0)
        return rc;
    if (!request || !text || !X509_REQ_set_pubkey(request, key) || !X509_REQ_sign(request, key, EVP_sha256()) ||
        !PEM_write_bio_X509_REQ(text, request))
        return pki_fail(e, E_IO, "make a request for a certificate");
    *ret = text_of(text);
    return 0;
}

// ---- granting

// A curve by its name: one with parameters of the sender's own choice says nothing about its strength.
static bool is_good_curve(EVP_PKEY *key)
{
    static const char *const good[] = { "prime256v1", "secp384r1", "secp521r1" };
    char name[32];
    size_t n;
    if (EVP_PKEY_get_group_name(key, name, sizeof name, &n) != 1)
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        if (strcmp(name, good[i]) == 0)
            return true;
    return false;
}

static bool is_good_rsa(EVP_PKEY *key)
{
    int bits = EVP_PKEY_get_bits(key);
    return bits >= RSA_BITS_MIN && bits <= RSA_BITS_MAX;
}

static int check_key(EVP_PKEY *key, struct error *e)
{
    int type = key ? EVP_PKEY_get_base_id(key) : EVP_PKEY_NONE;
    if ((type == EVP_PKEY_EC && is_good_curve(key)) || (type == EVP_PKEY_RSA && is_good_rsa(key)))
        return 0;
    return fail(e, E_INVALID, "a request for a certificate must be for an EC key on P-256, P-384 or P-521, or an RSA key of %d to %d bits",
                RSA_BITS_MIN, RSA_BITS_MAX);
}

static int read_request(const char *text, size_t n, X509_REQ **ret, struct error *e)
{
    AUTO(BIO_free_all) BIO *in = n <= CSR_BYTES_MAX ? BIO_new_mem_buf(text, (int)n) : NULL;
    AUTO(X509_REQ_free) X509_REQ *request = in ? PEM_read_bio_X509_REQ(in, NULL, pki_no_password, NULL) : NULL;
    ERR_clear_error();
    if (!request)
        return fail(e, E_INVALID, "not a request for a certificate in PEM, of at most %d bytes", CSR_BYTES_MAX);
    EVP_PKEY *key = X509_REQ_get0_pubkey(request);
    int rc = check_key(key, e);
    if (rc == 0 && X509_REQ_verify(request, key) != 1)
        rc = fail(e, E_DENIED, "a request for a certificate whose signature is wrong");
    ERR_clear_error();
    if (rc == 0)
        *ret = TAKE(request, NULL);
    return rc;
}

int pki_sign(const char *ca_dir, const char *request_text, size_t n, const struct pki_request *r, char **ret, struct error *e)
{
    __attribute__((cleanup(pki_ca_done))) struct pki_ca ca = { NULL, NULL, "" };
    AUTO(X509_REQ_free) X509_REQ *request = NULL;
    AUTO(GENERAL_NAMES_free) GENERAL_NAMES *names = NULL;
    AUTO(X509_free) X509 *certificate = NULL;
    AUTO(BIO_free_all) BIO *text = BIO_new(BIO_s_mem());
    int rc = read_request(request_text, n, &request, e);
    if (rc < 0 || (rc = pki_ca_read(ca_dir, &ca, e)) < 0 || (rc = pki_names(r, &names, e)) < 0 ||
        (rc = pki_issue(&ca, X509_REQ_get0_pubkey(request), r, names, &certificate, e)) < 0)
        return rc;
    if (!text || !PEM_write_bio_X509(text, certificate))
        return pki_fail(e, E_IO, "write a certificate as text");
    *ret = text_of(text);
    return 0;
}

// ---- installing

int pki_install(const char *dir, const char *file, const char *text, struct error *e)
{
    AUTO(free) char *key_path = path_of(dir, file, "key");
    AUTO(EVP_PKEY_free) EVP_PKEY *key = NULL;
    AUTO(X509_free) X509 *certificate = NULL;
    AUTO(BIO_free_all) BIO *in = BIO_new_mem_buf(text, -1), *out = BIO_new(BIO_s_mem());
    int rc = pki_read_key(key_path, &key, e);
    if (rc < 0)
        return rc;
    certificate = in ? PEM_read_bio_X509(in, NULL, pki_no_password, NULL) : NULL;
    if (!certificate)
        return pki_fail(e, E_INVALID, "what came is not a certificate in PEM");
    if (!X509_check_private_key(certificate, key)) {
        ERR_clear_error();
        return fail(e, E_INVALID, "the certificate that came is not for %s", key_path);
    }
    if (!out || !PEM_write_bio_X509(out, certificate)) // that one alone, whatever else the text held
        return pki_fail(e, E_IO, "write a certificate as text");
    return pki_write_file(dir, file, "crt", 0644, true, out, e);
}

int pki_install_ca(const char *dir, const char *text, const uint8_t fingerprint[PKI_FINGERPRINT_SIZE], struct error *e)
{
    uint8_t is[PKI_FINGERPRINT_SIZE];
    AUTO(BIO_free_all) BIO *in = BIO_new_mem_buf(text, -1), *out = BIO_new(BIO_s_mem());
    AUTO(X509_free) X509 *certificate = in ? PEM_read_bio_X509(in, NULL, pki_no_password, NULL) : NULL;
    if (!certificate || !X509_digest(certificate, EVP_sha256(), is, NULL))
        return pki_fail(e, E_INVALID, "what came is not a certificate in PEM");
    if (memcmp(is, fingerprint, sizeof is) != 0)
        return fail(e, E_DENIED, "the cluster's certificate that came is another than the token names");
    if (!out || !PEM_write_bio_X509(out, certificate))
        return pki_fail(e, E_IO, "write a certificate as text");
    return pki_write_file(dir, PKI_CA_FILE, "crt", 0644, true, out, e);
}

int pki_read_text(const char *dir, const char *file, char **ret, struct error *e)
{
    AUTO(free) char *path = path_of(dir, file, "crt");
    AUTO(X509_free) X509 *certificate = NULL;
    AUTO(BIO_free_all) BIO *out = BIO_new(BIO_s_mem());
    int rc = pki_read_certificate(path, &certificate, e);
    if (rc < 0)
        return rc;
    if (!out || !PEM_write_bio_X509(out, certificate))
        return pki_fail(e, E_IO, "write a certificate as text");
    *ret = text_of(out);
    return 0;
}

int pki_fingerprint(const char *dir, const char *file, uint8_t ret[PKI_FINGERPRINT_SIZE], struct error *e)
{
    AUTO(free) char *path = path_of(dir, file, "crt");
    AUTO(X509_free) X509 *certificate = NULL;
    int rc = pki_read_certificate(path, &certificate, e);
    if (rc == 0 && !X509_digest(certificate, EVP_sha256(), ret, NULL))
        rc = pki_fail(e, E_IO, "digest a certificate");
    return rc;
}

// ---- renewing

static int64_t seconds_between(const ASN1_TIME *from, const ASN1_TIME *to)
{
    int days = 0, seconds = 0;
    return ASN1_TIME_diff(&days, &seconds, from, to) ? days * INT64_C(86400) + seconds : 0;
}

int pki_life(const char *dir, const char *file, struct pki_life *ret, struct error *e)
{
    AUTO(free) char *path = path_of(dir, file, "crt");
    AUTO(X509_free) X509 *certificate = NULL;
    int rc = pki_read_certificate(path, &certificate, e);
    if (rc < 0)
        return rc;
    const int64_t usual_s = pki_life_s(PKI_DAYS);
    ret->whole_s = seconds_between(X509_get0_notBefore(certificate), X509_get0_notAfter(certificate));
    if (ret->whole_s > usual_s) // it is good from when its authority is
        ret->whole_s = usual_s;
    ret->left_s = seconds_between(NULL, X509_get0_notAfter(certificate)); // NULL: now
    return 0;
}

bool pki_is_due(const struct pki_life *life)
{
    return life->left_s < life->whole_s / 3;
}

// What the certificate was made for. The original Flocker's say nothing, and are good for both.
static unsigned use_of(X509 *certificate)
{
    uint32_t use = X509_get_extended_key_usage(certificate);
    if (use == UINT32_MAX)
        return PKI_SERVER | PKI_CLIENT;
    return (use & XKU_SSL_SERVER ? PKI_SERVER : 0U) | (use & XKU_SSL_CLIENT ? PKI_CLIENT : 0U);
}

int pki_renew(const char *ca_dir, const char *dir, const char *file, int days, struct error *e)
{
    char common_name[PKI_NAME_SIZE];
    AUTO(free) char *path = path_of(dir, file, "crt");
    __attribute__((cleanup(pki_ca_done))) struct pki_ca ca = { NULL, NULL, "" };
    AUTO(X509_free) X509 *old = NULL, *fresh = NULL;
    AUTO(BIO_free_all) BIO *text = BIO_new(BIO_s_mem());
    int rc = pki_read_certificate(path, &old, e);
    if (rc < 0 || (rc = pki_ca_read(ca_dir, &ca, e)) < 0)
        return rc;
    if (X509_verify(old, X509_get0_pubkey(ca.certificate)) != 1) {
        ERR_clear_error();
        return fail(e, E_DENIED, "%s was not issued by the authority in %s: it can't be renewed there", path, ca_dir);
    }
    if (!pki_subject_name(old, common_name, sizeof common_name))
        return fail(e, E_CORRUPT, "%s has no usable common name", path);
    const struct pki_request r = { .common_name = common_name, .use = use_of(old), .days = days };
    AUTO(GENERAL_NAMES_free) GENERAL_NAMES *names = X509_get_ext_d2i(old, NID_subject_alt_name, NULL, NULL);
    if ((rc = pki_issue(&ca, X509_get0_pubkey(old), &r, names, &fresh, e)) < 0)
        return rc;
    if (!text || !PEM_write_bio_X509(text, fresh))
        return pki_fail(e, E_IO, "write a certificate as text");
    return pki_write_file(dir, file, "crt", 0644, true, text, e);
}
