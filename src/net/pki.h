// Certificates: real X.509 v3 with EC keys (P-256), made and checked with OpenSSL 3.
//
// Files are PEM; a key's file has mode 0600 and is written before its certificate, so that a certificate's presence means the pair is
// whole. Nothing that exists is overwritten.
#ifndef FLOCKER_NET_PKI_H
#define FLOCKER_NET_PKI_H

#include "base/error.h"
#include "base/uuid.h"

#include <stdbool.h>

struct ssl_ctx_st;

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

// TLS 1.2 and up, own CA only. A server context demands a client certificate; whether its CN may do what it asks is the caller's check
// (struct http_peer). Free with SSL_CTX_free.
int pki_server_context(const char *ca, const char *certificate, const char *key, struct ssl_ctx_st **ret, struct error *e);
int pki_client_context(const char *ca, const char *certificate, const char *key, struct ssl_ctx_st **ret, struct error *e);
// A server that also takes clients which show no certificate; one that is shown must be good.
void pki_allow_anonymous(struct ssl_ctx_st *ctx);
// Connections of this client context are only to a server whose certificate holds that DNS name; its CN does not count.
int pki_expect_name(struct ssl_ctx_st *ctx, const char *name, struct error *e);

#endif
