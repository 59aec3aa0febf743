#include "base/rng.h"

#include "base/error.h"

#include <sys/random.h>

void rng_fill(void *ret, size_t n)
{
    ASSERT(n <= 256); // getrandom(2): up to 256 bytes always come whole once the pool is seeded
    ssize_t got = getrandom(ret, n, 0);
    ASSERT(got >= 0 && (size_t)got == n);
}

struct uuid rng_uuid(void)
{
    uint8_t random[16];
    rng_fill(random, sizeof random);
    return uuid_from_random(random);
}
