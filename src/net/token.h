// Join tokens: what a new host needs to find out that it talks to the right control service, and that service to let it in.
//
// The text is "join1." and 64 characters of base64url (RFC 4648): the SHA-256 fingerprint of the cluster's CA, and a secret. Control
// keeps only a digest of the secret.
#ifndef FLOCKER_NET_TOKEN_H
#define FLOCKER_NET_TOKEN_H

#include "base/uuid.h"

#include <stdbool.h>
#include <stdint.h>

#define TOKEN_SECRET_SIZE 16
#define TOKEN_TEXT_SIZE   71 // with the final NUL

struct token {
    uint8_t fingerprint[32];
    uint8_t secret[TOKEN_SECRET_SIZE];
};

const char *token_format(const struct token *t, char ret[TOKEN_TEXT_SIZE]); // returns ret
bool token_parse(const char *text, struct token *ret);                      // false if it is none
// What control keeps: the first 16 bytes of the SHA-256 of the secret. It can't be turned back, and finds the token again.
struct uuid token_digest(const uint8_t secret[TOKEN_SECRET_SIZE]);

#endif
