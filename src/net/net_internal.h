// What the files of this folder share with each other and with no other layer.
#ifndef FLOCKER_NET_INTERNAL_H
#define FLOCKER_NET_INTERNAL_H

#include "net/pki.h"

#include <stdbool.h>
#include <stddef.h>

struct x509_st;

// Length of the head at the start of `text`, with its empty line, or 0 if the empty line isn't there yet. Finds empty lines with bare
// line feeds too, so that a client that sends those learns at once that they are wrong.
size_t http_head_length(const char *text, size_t n);
// Whether a comma-separated header value holds `token`, in any case of letters.
bool http_has_token(const char *value, const char *token);
// The one subject CN of a certificate; false if there is none, several, or one that does not fit or holds a NUL byte.
bool pki_subject_name(const struct x509_st *certificate, char *ret, size_t n);
// SHA-256 of its public key, in hexadecimal digits; false: it has none that can be read.
bool pki_subject_key(const struct x509_st *certificate, char ret[PKI_KEY_SIZE]);
// A write to a socket whose peer has gone must be an error, not the end of the process; OpenSSL and libevent do not pass MSG_NOSIGNAL.
void socket_ignore_sigpipe(void);

#endif
