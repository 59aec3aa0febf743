#include "base/crc32c.h"

#include "base/mem.h"

#include <endian.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#define POLYNOMIAL 0x82f63b78U // reflected
#define SLICES     8

static uint32_t table[SLICES][256];
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static void make_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
        table[0][i] = crc;
    }
    for (int s = 1; s < SLICES; s++)
        for (int i = 0; i < 256; i++)
            table[s][i] = table[s - 1][i] >> 8 ^ table[0][table[s - 1][i] & 0xff];
}

// Eight bytes a step: "slicing by 8" (Kounavis and Berry, 2005).
uint32_t crc32c_by_table(uint32_t crc, const void *data, size_t n)
{
    const uint8_t *at = data;
    pthread_once(&table_once, make_table);
    for (; n >= sizeof(uint64_t); at += sizeof(uint64_t), n -= sizeof(uint64_t)) {
        uint64_t word;
        memcpy(&word, at, sizeof word);
        word = le64toh(word) ^ crc;
        crc = 0;
        for (unsigned i = 0; i < SLICES; i++)
            crc ^= table[SLICES - 1 - i][word >> (8 * i) & 0xff];
    }
    for (; n > 0; n--)
        crc = crc >> 8 ^ table[0][(crc ^ *at++) & 0xff];
    return crc;
}

#ifdef __x86_64__
#define LANE 2048 // bytes

static uint32_t over_lane[4][256]; // what a byte of the remainder becomes over a lane of zeros
static pthread_once_t over_lane_once = PTHREAD_ONCE_INIT;

__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc, const uint8_t *at, size_t n)
{
    uint64_t wide = crc;
    for (; n >= sizeof(uint64_t); at += sizeof(uint64_t), n -= sizeof(uint64_t)) {
        uint64_t word;
        memcpy(&word, at, sizeof word);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    crc = (uint32_t)wide;
    for (; n > 0; n--)
        crc = __builtin_ia32_crc32qi(crc, *at++);
    return crc;
}

static void make_over_lane(void)
{
    static const uint8_t zeros[LANE];
    for (unsigned i = 0; i < ARRAY_SIZE(over_lane); i++)
        for (uint32_t byte = 1; byte < 256; byte++) {
            uint32_t rest = byte & (byte - 1); // linear: that of a byte is the sum of those of its bits
            over_lane[i][byte] = rest ? over_lane[i][rest] ^ over_lane[i][byte ^ rest] : by_instruction(byte << (8 * i), zeros, LANE);
        }
}

static uint32_t skip_lane(uint32_t crc)
{
    return over_lane[0][crc & 0xff] ^ over_lane[1][crc >> 8 & 0xff] ^ over_lane[2][crc >> 16 & 0xff] ^ over_lane[3][crc >> 24];
}

// Three lanes at once: the instruction takes three cycles, but one can begin in each (Gopal et al., "Fast CRC Computation for iSCSI
// Polynomial Using CRC32 Instruction", 2011). The remainders are joined by a table, as in Mark Adler's crc32c.c.
__attribute__((target("sse4.2"))) static uint32_t by_lanes(uint32_t crc, const uint8_t *at)
{
    uint64_t a = crc, b = 0, c = 0;
    for (const uint8_t *end = at + LANE; at < end; at += sizeof(uint64_t)) {
        uint64_t words[3];
        memcpy(&words[0], at, sizeof words[0]);
        memcpy(&words[1], at + LANE, sizeof words[1]);
        memcpy(&words[2], at + 2 * LANE, sizeof words[2]);
        a = __builtin_ia32_crc32di(a, words[0]);
        b = __builtin_ia32_crc32di(b, words[1]);
        c = __builtin_ia32_crc32di(c, words[2]);
    }
    return skip_lane(skip_lane((uint32_t)a) ^ (uint32_t)b) ^ (uint32_t)c;
}

uint32_t crc32c(uint32_t crc, const void *data, size_t n)
{
    const uint8_t *at = data;
    if (!__builtin_cpu_supports("sse4.2"))
        return crc32c_by_table(crc, data, n);
    if (n >= 3 * LANE)
        pthread_once(&over_lane_once, make_over_lane);
    for (; n >= 3 * LANE; at += 3 * LANE, n -= 3 * LANE)
        crc = by_lanes(crc, at);
    return by_instruction(crc, at, n);
}
#else
uint32_t crc32c(uint32_t crc, const void *data, size_t n)
{
    return crc32c_by_table(crc, data, n);
}
#endif
