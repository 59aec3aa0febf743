// CRC-32C (Castagnoli polynomial 0x1edc6f41, reflected 0x82f63b78; RFC 3720 appendix B.4), as btrfs uses it.
#ifndef FLOCKER_BASE_CRC32C_H
#define FLOCKER_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

// Goes on from `crc`, the remainder itself: nothing is inverted at the start or the end, as in the kernel's crc32c(). RFC 3720's value of
// a whole message is ~crc32c(~0, ...). Uses the CPU's instruction where it has one (SSE 4.2), else a table of eight times 256 words.
uint32_t crc32c(uint32_t crc, const void *data, size_t n);
// The same by the table, on any CPU.
uint32_t crc32c_by_table(uint32_t crc, const void *data, size_t n);

#endif
