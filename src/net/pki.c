#include "net/pki.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "net/pki_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#define DAYS_MAX      36500
#define DAY_S         (24 * 3600)
#define DNS_NAME_MAX  253
#define X509_VERSION3 2

DEFINE_AUTO(BIGNUM *, BN_free)
DEFINE_AUTO(X509_EXTENSION *, X509_EXTENSION_free)

int pki_fail(struct error *e, enum errcode code, const char *what)
{
    unsigned long err = ERR_peek_last_error();
    const char *reason = err ? ERR_reason_error_string(err) : NULL;
    ERR_clear_error();
    return fail(e, code, "%s: %s", what, reason ? reason : "OpenSSL gives no reason");
}

// ---- files

static char *file_path(const char *dir, const char *file, const char *suffix)
{
    return xasprintf("%s/%s.%s", dir, file, suffix);
}

static bool is_there(const char *dir, const char *file, const char *suffix)
{
    AUTO(free) char *path = file_path(dir, file, suffix);
    return access(path, F_OK) == 0;
}

bool pki_has(const char *dir, const char *file)
{
    return is_there(dir, file, "key") && is_there(dir, file, "crt");
}

static int must_be_free(const char *dir, const char *file, struct error *e)
{
    bool key = is_there(dir, file, "key"), crt = is_there(dir, file, "crt");
    if (!key && !crt)
        return 0;
    if (key && !crt) // made by an attempt that was interrupted
        return fail(e, E_CONFLICT, "%s/%s.key exists without a certificate; move it away first", dir, file);
    return fail(e, E_CONFLICT, "%s/%s.crt exists already; nothing was changed", dir, file);
}

static int sync_dir(const char *dir, struct error *e)
{
    AUTO(close) int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        return fail_os(e, errno, "sync %s", dir);
    return 0;
}

static int write_all(int fd, const char *text, size_t n)
{
    while (n) {
        ssize_t done = write(fd, text, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -1;
        text += done;
        n -= (size_t)done;
    }
    return fsync(fd);
}

int pki_write_file(const char *dir, const char *file, const char *suffix, mode_t mode, bool replace, BIO *from, struct error *e)
{
    char *text = NULL;
    long n = BIO_get_mem_data(from, &text);
    AUTO(free) char *path = file_path(dir, file, suffix);
    AUTO(free) char *temp = xasprintf("%s.XXXXXX", path);
    AUTO(close) int fd = mkostemp(temp, O_CLOEXEC); // 0600
    if (fd < 0)
        return fail_os(e, errno, "write %s", path);
    if (fchmod(fd, mode) < 0 || write_all(fd, text, (size_t)n) < 0 || renameat2(AT_FDCWD, temp, AT_FDCWD, path, replace ? 0 : RENAME_NOREPLACE) < 0) {
        int err = errno;
        unlink(temp);
        return fail_os(e, err, "write %s", path);
    }
    return sync_dir(dir, e);
}

// The key first: a certificate's presence means that the pair is whole.
static int write_pair(const char *dir, const char *file, EVP_PKEY *key, X509 *certificate, struct error *e)
{
    BIO *key_text = BIO_new(BIO_s_secmem()), *text = BIO_new(BIO_s_mem());
    int rc;
    if (!key_text || !text || !PEM_write_bio_PrivateKey(key_text, key, NULL, NULL, 0, NULL, NULL) ||
        !PEM_write_bio_X509(text, certificate))
        rc = pki_fail(e, E_IO, "write key and certificate as text");
    else if ((rc = pki_write_file(dir, file, "key", 0600, false, key_text, e)) == 0)
        rc = pki_write_file(dir, file, "crt", 0644, false, text, e);
    BIO_free(key_text);
    BIO_free(text);
    return rc;
}

int pki_no_password(char *buf, int size, int for_writing, void *arg)
{
    (void)buf, (void)size, (void)for_writing, (void)arg;
    return -1; // without this OpenSSL asks at the terminal
}

static int open_pem(const char *path, BIO **ret, struct error *e)
{
    BIO *in = BIO_new_file(path, "re");
    if (!in) {
        int err = errno;
        ERR_clear_error();
        return fail_os(e, err, "read %s", path);
    }
    *ret = in;
    return 0;
}

int pki_read_certificate(const char *path, X509 **ret, struct error *e)
{
    BIO *in = NULL;
    int rc = open_pem(path, &in, e);
    if (rc < 0)
        return rc;
    X509 *certificate = PEM_read_bio_X509(in, NULL, pki_no_password, NULL);
    BIO_free(in);
    if (!certificate)
        return fail_ctx(e, pki_fail(e, E_CORRUPT, "not a PEM certificate"), "read %s", path);
    *ret = certificate;
    return 0;
}

int pki_read_key(const char *path, EVP_PKEY **ret, struct error *e)
{
    BIO *in = NULL;
    int rc = open_pem(path, &in, e);
    if (rc < 0)
        return rc;
    EVP_PKEY *key = PEM_read_bio_PrivateKey(in, NULL, pki_no_password, NULL);
    BIO_free(in);
    if (!key)
        return fail_ctx(e, pki_fail(e, E_CORRUPT, "not a PEM private key without a password"), "read %s", path);
    *ret = key;
    return 0;
}

// ---- names

bool pki_name_entry(const X509 *certificate, int nid, char *ret, size_t n)
{
    const X509_NAME *name = X509_get_subject_name(certificate);
    int at = X509_NAME_get_index_by_NID(name, nid, -1);
    if (at < 0 || X509_NAME_get_index_by_NID(name, nid, at) >= 0)
        return false;
    unsigned char *text = NULL;
    int length = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
    bool is_good = length > 0 && (size_t)length < n && !memchr(text, 0, (size_t)length);
    if (is_good) {
        memcpy(ret, text, (size_t)length);
        ret[length] = 0;
    }
    OPENSSL_free(text);
    return is_good;
}

bool pki_subject_name(const struct x509_st *certificate, char *ret, size_t n)
{
    return pki_name_entry(certificate, NID_commonName, ret, n);
}

int pki_common_name(const char *certificate_path, char *ret, size_t n, struct error *e)
{
    AUTO(X509_free) X509 *certificate = NULL;
    int rc = pki_read_certificate(certificate_path, &certificate, e);
    if (rc < 0)
        return rc;
    if (!pki_subject_name(certificate, ret, n))
        return fail(e, E_CORRUPT, "%s has no usable common name", certificate_path);
    return 0;
}

bool pki_subject_key(const struct x509_st *certificate, char ret[PKI_KEY_SIZE])
{
    unsigned char digest[PKI_FINGERPRINT_SIZE];
    if (!X509_pubkey_digest(certificate, EVP_sha256(), digest, NULL))
        return false;
    for (size_t i = 0; i < sizeof digest; i++)
        snprintf(ret + 2 * i, 3, "%02x", digest[i]);
    return true;
}

int pki_key_digest(const char *certificate_path, char ret[PKI_KEY_SIZE], struct error *e)
{
    AUTO(X509_free) X509 *certificate = NULL;
    int rc = pki_read_certificate(certificate_path, &certificate, e);
    if (rc == 0 && !pki_subject_key(certificate, ret))
        rc = pki_fail(e, E_IO, "digest a key");
    return rc;
}

static bool add_name(GENERAL_NAMES *names, int type, void *value)
{
    GENERAL_NAME *name = value ? GENERAL_NAME_new() : NULL;
    if (!name) {
        ASN1_STRING_free(value);
        return false;
    }
    GENERAL_NAME_set0_value(name, type, value);
    if (sk_GENERAL_NAME_push(names, name) > 0)
        return true;
    GENERAL_NAME_free(name);
    return false;
}

static bool add_dns(GENERAL_NAMES *names, const char *text)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_*";
    size_t n = strlen(text);
    if (n == 0 || n > DNS_NAME_MAX || strspn(text, allowed) != n)
        return false;
    ASN1_IA5STRING *value = ASN1_IA5STRING_new();
    if (value && !ASN1_STRING_set(value, text, (int)n)) {
        ASN1_STRING_free(value);
        value = NULL;
    }
    return add_name(names, GEN_DNS, value);
}

static bool add_ip(GENERAL_NAMES *names, const char *text)
{
    return add_name(names, GEN_IPADD, a2i_IPADDRESS(text));
}

int pki_names(const struct pki_request *r, GENERAL_NAMES **ret, struct error *e)
{
    static const char *const none[] = { NULL };
    AUTO(GENERAL_NAMES_free) GENERAL_NAMES *names = GENERAL_NAMES_new();
    for (const char *const *dns = r->dns ? r->dns : none; *dns; dns++)
        if (!add_dns(names, *dns))
            return fail(e, E_INVALID, "\"%s\" is not a DNS name", *dns);
    for (const char *const *ip = r->ip ? r->ip : none; *ip; ip++)
        if (!add_ip(names, *ip)) {
            ERR_clear_error();
            return fail(e, E_INVALID, "\"%s\" is not an IP address", *ip);
        }
    *ret = sk_GENERAL_NAME_num(names) > 0 ? TAKE(names, NULL) : NULL;
    return 0;
}

// ---- making certificates

static int set_serial(X509 *certificate)
{
    unsigned char random[16];
    do
        rng_fill(random, sizeof random);
    while (random[0] == 0); // RFC 5280 wants it positive; this also keeps every serial the same length
    AUTO(BN_free) BIGNUM *number = BN_bin2bn(random, sizeof random, NULL);
    return number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)) != NULL;
}

int64_t pki_life_s(int days)
{
    const char *text = getenv("FLOCKER_CERTIFICATE_S");
    long s = text ? strtol(text, NULL, 10) : 0;
    return s < 1 ? days * (int64_t)DAY_S : s;
}

// What is signed is good from when its authority is, not from now on: so it does not matter that clocks differ, or that this one is ahead
// and is set right later. An authority begins a month before it is made: clocks of hosts that join it
// then may be behind.
static int set_beginning(X509 *certificate, const X509 *ca, time_t now, struct error *e)
{
    char text[CLOCK_TEXT_SIZE];
    if (!ca)
        return X509_time_adj_ex(X509_getm_notBefore(certificate), 0, -30 * DAY_S, &now) ? 0 : pki_fail(e, E_IO, "set the certificate's validity");
    if (X509_cmp_time(X509_get0_notBefore(ca), &now) > 0)
        return fail(e, E_UNAVAILABLE, "this host's clock says %.10s, and the cluster began later: that clock is wrong; set it right and try again",
                    clock_format((int64_t)now * 1000, text));
    return X509_set1_notBefore(certificate, X509_get0_notBefore(ca)) ? 0 : pki_fail(e, E_IO, "set the certificate's validity");
}

static int set_validity(X509 *certificate, int days, const X509 *ca, struct error *e)
{
    time_t now = (time_t)(clock_wall_ms() / 1000);
    int64_t life_s = ca ? pki_life_s(days) : days * (int64_t)DAY_S;
    if (days < 1 || days > DAYS_MAX)
        return fail(e, E_INVALID, "a certificate must be valid for 1 to %d days, not %d", DAYS_MAX, days);
    int rc = set_beginning(certificate, ca, now, e);
    if (rc < 0)
        return rc;
    if (!X509_time_adj_ex(X509_getm_notAfter(certificate), 0, (long)life_s, &now))
        return pki_fail(e, E_IO, "set the certificate's validity");
    // One that outlived its CA would be refused anyway, by a message that is harder to understand.
    if (ca && ASN1_TIME_compare(X509_get0_notAfter(certificate), X509_get0_notAfter(ca)) > 0 &&
        !X509_set1_notAfter(certificate, X509_get0_notAfter(ca)))
        return pki_fail(e, E_IO, "set the certificate's validity");
    return 0;
}

static int set_subject(X509 *certificate, const char *common_name, const char *cluster, struct error *e)
{
    X509_NAME *name = X509_get_subject_name(certificate);
    if (!X509_NAME_add_entry_by_NID(name, NID_commonName, MBSTRING_UTF8, (const unsigned char *)common_name, -1, -1, 0))
        return fail_ctx(e, pki_fail(e, E_INVALID, "not a common name of 1 to 64 characters"), "\"%s\"", common_name);
    if (!X509_NAME_add_entry_by_NID(name, NID_organizationalUnitName, MBSTRING_UTF8, (const unsigned char *)cluster, -1, -1, 0))
        return pki_fail(e, E_IO, "set the certificate's cluster");
    return 0;
}

struct extension {
    int nid;
    const char *value;
};

static int add_extensions(X509 *certificate, X509 *issuer, const struct extension *list, size_t n, struct error *e)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, certificate, NULL, NULL, 0);
    for (size_t i = 0; i < n; i++) {
        if (!list[i].value)
            continue;
        AUTO(X509_EXTENSION_free) X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &ctx, list[i].nid, list[i].value);
        if (!extension || !X509_add_ext(certificate, extension, -1))
            return fail_ctx(e, pki_fail(e, E_IO, OBJ_nid2ln(list[i].nid)), "add extension");
    }
    return 0;
}

// An unsigned certificate of `key` without extensions.
static int new_certificate(EVP_PKEY *key, const char *common_name, const char *cluster, int days, const X509 *ca, X509 **ret,
                           struct error *e)
{
    AUTO(X509_free) X509 *certificate = X509_new();
    if (!certificate || !X509_set_version(certificate, X509_VERSION3) || !set_serial(certificate) || !X509_set_pubkey(certificate, key))
        return pki_fail(e, E_IO, "make a certificate");
    int rc = set_validity(certificate, days, ca, e);
    if (rc < 0 || (rc = set_subject(certificate, common_name, cluster, e)) < 0)
        return rc;
    if (!X509_set_issuer_name(certificate, X509_get_subject_name(ca ? ca : certificate)))
        return pki_fail(e, E_IO, "set the certificate's issuer");
    *ret = TAKE(certificate, NULL);
    return 0;
}

int pki_make_ca(const char *dir, const char *name, int days, struct error *e)
{
    static const struct extension extensions[] = {
        { NID_basic_constraints, "critical,CA:TRUE,pathlen:0" },
        { NID_key_usage, "critical,keyCertSign,cRLSign" },
        { NID_subject_key_identifier, "hash" },
        { NID_authority_key_identifier, "keyid:always" },
    };
    AUTO(X509_free) X509 *certificate = NULL;
    int rc = must_be_free(dir, PKI_CA_FILE, e);
    if (rc < 0)
        return rc;
    AUTO(EVP_PKEY_free) EVP_PKEY *key = EVP_EC_gen("P-256");
    if (!key)
        return pki_fail(e, E_IO, "make a key");
    struct uuid cluster = rng_uuid();
    if ((rc = new_certificate(key, name, UUID_TEXT(&cluster), days, NULL, &certificate, e)) < 0 ||
        (rc = add_extensions(certificate, certificate, extensions, ARRAY_SIZE(extensions), e)) < 0)
        return fail_ctx(e, rc, "make the cluster's certificate");
    if (!X509_sign(certificate, key, EVP_sha256()))
        return pki_fail(e, E_IO, "sign the cluster's certificate");
    return write_pair(dir, PKI_CA_FILE, key, certificate, e);
}

void pki_ca_done(struct pki_ca *ca)
{
    X509_free(ca->certificate);
    EVP_PKEY_free(ca->key);
}

int pki_ca_read(const char *dir, struct pki_ca *ca, struct error *e)
{
    struct uuid cluster;
    AUTO(free) char *certificate_path = file_path(dir, PKI_CA_FILE, "crt");
    AUTO(free) char *key_path = file_path(dir, PKI_CA_FILE, "key");
    int rc = pki_read_certificate(certificate_path, &ca->certificate, e);
    if (rc < 0 || (rc = pki_read_key(key_path, &ca->key, e)) < 0)
        return rc;
    if (!X509_check_private_key(ca->certificate, ca->key)) {
        ERR_clear_error();
        return fail(e, E_CORRUPT, "%s is not the key of %s", key_path, certificate_path);
    }
    if (!pki_name_entry(ca->certificate, NID_organizationalUnitName, ca->cluster, sizeof ca->cluster) || !uuid_parse(ca->cluster, &cluster))
        return fail(e, E_INVALID, "%s is not a cluster's certificate: its OU is not a UUID", certificate_path);
    return 0;
}

int pki_issue(const struct pki_ca *ca, EVP_PKEY *key, const struct pki_request *r, GENERAL_NAMES *names, X509 **ret, struct error *e)
{
    static const char *const usages[] = { NULL, "serverAuth", "clientAuth", "serverAuth,clientAuth" };
    if (r->use < 1 || r->use >= ARRAY_SIZE(usages))
        return fail(e, E_INVALID, "a certificate must be for a server, a client, or both");
    const struct extension extensions[] = {
        { NID_basic_constraints, "critical,CA:FALSE" },
        { NID_key_usage, "critical,digitalSignature" },
        { NID_ext_key_usage, usages[r->use] },
        { NID_subject_key_identifier, "hash" },
        { NID_authority_key_identifier, "keyid:always" },
    };
    AUTO(X509_free) X509 *certificate = NULL;
    int rc = new_certificate(key, r->common_name, ca->cluster, r->days, ca->certificate, &certificate, e);
    if (rc < 0 || (rc = add_extensions(certificate, ca->certificate, extensions, ARRAY_SIZE(extensions), e)) < 0)
        return rc;
    if (names && X509_add1_ext_i2d(certificate, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT) != 1)
        return pki_fail(e, E_IO, "add names to the certificate");
    if (!X509_sign(certificate, ca->key, EVP_sha256()))
        return pki_fail(e, E_IO, "sign the certificate");
    *ret = TAKE(certificate, NULL);
    return 0;
}

int pki_make_certificate(const char *ca_dir, const char *dir, const char *file, const struct pki_request *r, struct error *e)
{
    __attribute__((cleanup(pki_ca_done))) struct pki_ca ca = { NULL, NULL, "" };
    AUTO(GENERAL_NAMES_free) GENERAL_NAMES *names = NULL;
    AUTO(X509_free) X509 *certificate = NULL;
    int rc = must_be_free(dir, file, e);
    if (rc < 0 || (rc = pki_ca_read(ca_dir, &ca, e)) < 0 || (rc = pki_names(r, &names, e)) < 0)
        return rc;
    AUTO(EVP_PKEY_free) EVP_PKEY *key = EVP_EC_gen("P-256");
    if (!key)
        return pki_fail(e, E_IO, "make a key");
    rc = pki_issue(&ca, key, r, names, &certificate, e);
    return rc < 0 ? rc : write_pair(dir, file, key, certificate, e);
}
