// What the files about certificates share: pki.c makes them, pki_enrol.c signs for others and renews, pki_tls.c uses them.
#ifndef FLOCKER_NET_PKI_INTERNAL_H
#define FLOCKER_NET_PKI_INTERNAL_H

#include "base/mem.h"
#include "base/uuid.h"
#include "net/net_internal.h"
#include "net/pki.h"

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/types.h>

DEFINE_AUTO(X509 *, X509_free)
DEFINE_AUTO(EVP_PKEY *, EVP_PKEY_free)
DEFINE_AUTO(GENERAL_NAMES *, GENERAL_NAMES_free)
DEFINE_AUTO(BIO *, BIO_free_all)

struct pki_ca {
    X509 *certificate;
    EVP_PKEY *key;
    char cluster[UUID_TEXT_SIZE];
};
int pki_ca_read(const char *dir, struct pki_ca *ca, struct error *e); // pki_ca_done also after a failure
void pki_ca_done(struct pki_ca *ca);

// A signed certificate for that key. `names` are the alternative ones, or NULL; those of `r` are not looked at.
int pki_issue(const struct pki_ca *ca, EVP_PKEY *key, const struct pki_request *r, GENERAL_NAMES *names, X509 **ret, struct error *e);
// The names that `r` asks for; NULL for none.
int pki_names(const struct pki_request *r, GENERAL_NAMES **ret, struct error *e);

// fail() with OpenSSL's reason; leaves its error queue empty.
int pki_fail(struct error *e, enum errcode code, const char *what);
int pki_read_certificate(const char *path, X509 **ret, struct error *e);
int pki_read_key(const char *path, EVP_PKEY **ret, struct error *e);
// Writes what `from` holds to <dir>/<file>.<suffix>, whole or not at all, durably. Over nothing that exists, unless it is to `replace` it.
int pki_write_file(const char *dir, const char *file, const char *suffix, mode_t mode, bool replace, BIO *from, struct error *e);
// The one entry of that kind of a certificate's subject; false as for pki_subject_name.
bool pki_name_entry(const X509 *certificate, int nid, char *ret, size_t n);
int64_t pki_life_s(int days); // the validity of what is signed for so many days: tests shorten it
int pki_no_password(char *buf, int size, int for_writing, void *arg); // without it OpenSSL asks at the terminal

#endif
