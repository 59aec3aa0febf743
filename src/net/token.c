#include "net/token.h"

#include "base/error.h"

#include <string.h>

#include <openssl/evp.h>

#define PREFIX "join1."
#define PREFIX_N (sizeof PREFIX - 1)
#define CODED_N  64 // of 48 bytes

static void swap_all(char *text, const char *from, const char *to)
{
    for (; *text; text++)
        for (size_t i = 0; from[i]; i++)
            if (*text == from[i]) {
                *text = to[i];
                break;
            }
}

const char *token_format(const struct token *t, char ret[TOKEN_TEXT_SIZE])
{
    _Static_assert(sizeof *t == CODED_N / 4 * 3 && TOKEN_TEXT_SIZE == PREFIX_N + CODED_N + 1, "no padding");
    memcpy(ret, PREFIX, PREFIX_N);
    EVP_EncodeBlock((unsigned char *)ret + PREFIX_N, (const unsigned char *)t, sizeof *t);
    swap_all(ret + PREFIX_N, "+/", "-_");
    return ret;
}

bool token_parse(const char *text, struct token *ret)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    char coded[CODED_N + 1];
    unsigned char bytes[sizeof *ret];
    if (strncmp(text, PREFIX, PREFIX_N) != 0 || strlen(text) != PREFIX_N + CODED_N || strspn(text + PREFIX_N, allowed) != CODED_N)
        return false;
    memcpy(coded, text + PREFIX_N, sizeof coded);
    swap_all(coded, "-_", "+/");
    if (EVP_DecodeBlock(bytes, (const unsigned char *)coded, CODED_N) != (int)sizeof bytes)
        return false;
    memcpy(ret, bytes, sizeof *ret);
    return true;
}

struct uuid token_digest(const uint8_t secret[TOKEN_SECRET_SIZE])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    struct uuid ret;
    int ok = EVP_Digest(secret, TOKEN_SECRET_SIZE, digest, NULL, EVP_sha256(), NULL);
    ASSERT(ok == 1);
    memcpy(ret.b, digest, sizeof ret.b);
    return ret;
}
