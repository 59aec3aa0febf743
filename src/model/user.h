// A user of whom certificates were revoked. Of all others every certificate of the cluster's authority counts.
#ifndef FLOCKER_MODEL_USER_H
#define FLOCKER_MODEL_USER_H

#include <stdint.h>

#define USER_NAME_SIZE 123 // what the subject "user-<name>" of a certificate has room for (struct http_peer)
#define USER_KEY_SIZE  65  // SHA-256 of a public key, in hexadecimal digits

struct user {
    char name[USER_NAME_SIZE];
    char key[USER_KEY_SIZE]; // the one whose certificates count all the same; "": none
    int64_t revoked_ms;      // wall clock
};

#endif
