// Errors: a code from one table, an errno, and a message for the person who must act.
//
// Every function that can fail takes `struct error *e` last (never NULL), returns 0 or a positive value on success and
// a negative code (-E_...) on failure. The object lives on the caller's stack, owns nothing, and is written only on failure.
// A message names the thing and what to do about it. A function logs or returns an error, never both.
#ifndef FLOCKER_BASE_ERROR_H
#define FLOCKER_BASE_ERROR_H

#include <stddef.h>

//    code           word in JSON    HTTP  exit  what it means to the user: for docs/errors.md, no code reads it
#define ERROR_TABLE(X) \
    X(E_INVALID,     "invalid",      400,  2,  "The request or an argument is wrong: correct it and try again.") \
    X(E_DENIED,      "denied",       403,  3,  "The caller may not do this.") \
    X(E_NOT_FOUND,   "not-found",    404,  4,  "There is no such thing.") \
    X(E_CONFLICT,    "conflict",     409,  5,  "It contradicts what is there, for example a name in use.") \
    X(E_BUSY,        "in-use",       409,  6,  "Something still uses the volume; the message names it.") \
    X(E_TOO_LARGE,   "too-large",    413,  7,  "Larger than a limit.") \
    X(E_NO_SPACE,    "no-space",     507,  8,  "The pool or the disk is full.") \
    X(E_UNAVAILABLE, "unavailable",  503,  9,  "Something that is needed is down or still starting: try again.") \
    X(E_TIMEOUT,     "timeout",      504, 10,  "It did not finish in time; it may still be going on.") \
    X(E_IO,          "io-error",     500, 11,  "The system refused or failed; the message has its reason.") \
    X(E_CORRUPT,     "corrupt",      500, 12,  "Stored data is damaged; nothing was changed.") \
    X(E_UNSUPPORTED, "unsupported",  501, 13,  "This kernel, backend or engine cannot do it.")

enum errcode {
    E_NONE = 0,
#define X(code, word, http, exit, text) code,
    ERROR_TABLE(X)
#undef X
    E_COUNT
};

struct error {
    enum errcode code;
    int os_errno;
    char msg[400];
};

#define ERROR_INIT { E_NONE, 0, "" }

// Sets code and message; returns -code.
int fail(struct error *e, enum errcode code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
// Sets the code that fits errno value `err`, the message, and ": <text of err>"; returns -code.
int fail_os(struct error *e, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
// Puts "<context>: " before the message of an error that is already set; returns rc.
int fail_ctx(struct error *e, int rc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

const char *error_word(enum errcode code);         // "not-found"; "" for E_NONE
enum errcode error_from_word(const char *word);    // E_IO for a word that is not in the table
int error_http(enum errcode code);                 // HTTP status
int error_exit(enum errcode code);                 // exit status of the CLI

// A broken invariant is a bug in Flocker: say where and abort. Never disabled, no side effects in `x`.
#define ASSERT(x) ((x) ? (void)0 : assert_failed(#x, __FILE__, __LINE__))
_Noreturn void assert_failed(const char *what, const char *file, int line);

#endif
