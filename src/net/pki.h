// Certificates: real X.509 v3 with EC keys (P-256), made and checked with OpenSSL 3.
//
// Files are PEM; a key's file has mode 0600 and is written before its certificate, so that a certificate's presence means the pair is
// whole. Nothing that exists is overwritten, but a certificate by its renewal, which keeps the key: so one rename does it.
//
// Certificates of the original Flocker (RSA 4096, marked X.509 v1 although they have extensions) are taken as authority and as peer:
// OpenSSL reads the extensions all the same. What is made here is v3 even if such an authority signs it.
#ifndef FLOCKER_NET_PKI_H
#define FLOCKER_NET_PKI_H

#include "base/error.h"
#include "base/uuid.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ssl_ctx_st;

#define PKI_CA_FILE          "cluster" // <dir>/cluster.crt, .key
#define PKI_CA_DAYS          (20 * 365)
#define PKI_DAYS             365       // of all others; they are renewed when less than a third is left. In tests FLOCKER_CERTIFICATE_S in
                                       // the environment of who signs and who renews is their validity in seconds instead
#define PKI_NAME_SIZE        128
#define PKI_FINGERPRINT_SIZE 32
#define PKI_KEY_SIZE         65        // SHA-256 in hexadecimal digits
#define PKI_USER_PREFIX      "user-" // of the subject of a user's certificate
#define PKI_CONTROL_NAME     "control-service" // a DNS name in the control service's certificate, whatever its host is called

enum pki_use { PKI_SERVER = 1, PKI_CLIENT = 2 }; // extended key usage, may be combined

struct pki_request {
    const char *common_name; // "control-service", "node-<uuid>", "user-<name>", "engine-<name>"
    unsigned use;            // enum pki_use
    const char *const *dns;  // subjectAltName, NULL-terminated or NULL
    const char *const *ip;
    int days;                // validity
};

// Makes <dir>/cluster.key and <dir>/cluster.crt: CN = name, OU = a fresh cluster UUID. E_CONFLICT if either exists.
int pki_make_ca(const char *dir, const char *name, int days, struct error *e);
// Makes <dir>/<file>.key and <dir>/<file>.crt signed by the CA in <ca_dir>. E_CONFLICT if either exists.
int pki_make_certificate(const char *ca_dir, const char *dir, const char *file, const struct pki_request *r, struct error *e);
bool pki_has(const char *dir, const char *file); // both files are there
// Subject CN of a certificate file.
int pki_common_name(const char *certificate_path, char *ret, size_t n, struct error *e);

// SHA-256 of a certificate file's public key, in hexadecimal digits: the same after a renewal.
int pki_key_digest(const char *certificate_path, char ret[PKI_KEY_SIZE], struct error *e);

// ---- for keys that stay where they were made

// A request for a certificate, in PEM, for <dir>/<file>.key, which is made if it isn't there. It says nothing of names: who signs decides.
int pki_make_request(const char *dir, const char *file, char **ret, struct error *e);
// Signs a request of n bytes with the CA in `ca_dir`: a certificate in PEM as `r` says. E_INVALID, E_DENIED: the request is no good;
// E_NOT_FOUND: there is no cluster.key.
int pki_sign(const char *ca_dir, const char *request, size_t n, const struct pki_request *r, char **ret, struct error *e);
// Makes a certificate (PEM) <dir>/<file>.crt, in one step, in place of one that is there. E_INVALID if it is not for the key beside it.
int pki_install(const char *dir, const char *file, const char *text, struct error *e);
// Makes it <dir>/cluster.crt. E_DENIED unless it has that fingerprint.
int pki_install_ca(const char *dir, const char *text, const uint8_t fingerprint[PKI_FINGERPRINT_SIZE], struct error *e);
int pki_read_text(const char *dir, const char *file, char **ret, struct error *e); // <dir>/<file>.crt in PEM
// SHA-256 over the DER form of <dir>/<file>.crt.
int pki_fingerprint(const char *dir, const char *file, uint8_t ret[PKI_FINGERPRINT_SIZE], struct error *e);

// ---- renewal

struct pki_life {
    int64_t whole_s, left_s; // whole: at most PKI_DAYS, however long it has been good; left: negative when it is over
};
int pki_life(const char *dir, const char *file, struct pki_life *ret, struct error *e);
bool pki_is_due(const struct pki_life *life); // for renewal
// Signs <dir>/<file>.crt anew: the same key, names and use. E_DENIED if the CA in `ca_dir` has not issued it.
int pki_renew(const char *ca_dir, const char *dir, const char *file, int days, struct error *e);

// ---- TLS

#define PKI_WHY_SIZE 160
// What is wrong with the other end's certificate, by the verdict of OpenSSL. Where that depends on time, with what this host's clock says, by
// the day: then that clock is as likely to be wrong as the certificate is. Returns `ret`.
const char *pki_why_not(long verdict, char ret[PKI_WHY_SIZE]);
bool pki_is_about_time(long verdict);
// The same for an alert with which the other end has refused our certificate; `reason` is OpenSSL's number, `text` its text.
const char *pki_why_refused(int reason, const char *text, char ret[PKI_WHY_SIZE]);

// TLS 1.2 and up, own CA only. A server context demands a client certificate; whether its CN may do what it asks is the caller's check
// (struct http_peer). Free with SSL_CTX_free.
int pki_server_context(const char *ca, const char *certificate, const char *key, struct ssl_ctx_st **ret, struct error *e);
int pki_client_context(const char *ca, const char *certificate, const char *key, struct ssl_ctx_st **ret, struct error *e);
// A server that also takes clients which show no certificate; one that is shown must be good.
void pki_allow_anonymous(struct ssl_ctx_st *ctx);
// Connections of this client context are only to a server whose certificate holds that DNS name; its CN does not count.
int pki_expect_name(struct ssl_ctx_st *ctx, const char *name, struct error *e);
// A client without a certificate, for a server whose chain must end in the CA of that fingerprint and hold the name `name`.
int pki_pinned_context(const uint8_t fingerprint[PKI_FINGERPRINT_SIZE], const char *name, struct ssl_ctx_st **ret, struct error *e);
// New connections of the context use that pair, as it is in the files now; connections that are open go on.
int pki_reload(struct ssl_ctx_st *ctx, const char *certificate, const char *key, struct error *e);

#endif
