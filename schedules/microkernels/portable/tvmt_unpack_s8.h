/* Weights with few distinct values: indices of 1 to 7 bits into a codebook (tvmtiny/storage/indices.py). */
#ifndef TVMT_UNPACK_S8_H
#define TVMT_UNPACK_S8_H

#include "tvmt_platform.h"

/* Up to four bytes, the first in the lowest bits: one load where the core has unaligned ones, which compilers see. */
TVMT_INLINE uint32_t tvmt_index_word(const uint8_t *data, int32_t bytes) {
  return (bytes > 0 ? (uint32_t)data[0] : 0u) | (bytes > 1 ? (uint32_t)data[1] << 8 : 0u) |
         (bytes > 2 ? (uint32_t)data[2] << 16 : 0u) | (bytes > 3 ? (uint32_t)data[3] << 24 : 0u);
}

/* Eight indices are `bits` bytes, the first in the lowest bits. */
TVMT_INLINE uint64_t tvmt_index_group(const uint8_t *data, int32_t bits) {
  const uint32_t high = bits > 4 ? tvmt_index_word(data + 4, bits - 4) : 0u;
  return (uint64_t)high << 32 | tvmt_index_word(data, bits);
}

TVMT_INLINE void tvmt_unpack_bits(const uint8_t *data, const int8_t *codebook, int8_t *out, int32_t count,
                                  int32_t bits) {
  const uint32_t mask = (1u << bits) - 1u;
  for (; count > 7; count -= 8) {
    const uint64_t group = tvmt_index_group(data, bits);
    out[0] = codebook[(uint32_t)group & mask];
    out[1] = codebook[(uint32_t)(group >> bits) & mask];
    out[2] = codebook[(uint32_t)(group >> 2 * bits) & mask];
    out[3] = codebook[(uint32_t)(group >> 3 * bits) & mask];
    out[4] = codebook[(uint32_t)(group >> 4 * bits) & mask];
    out[5] = codebook[(uint32_t)(group >> 5 * bits) & mask];
    out[6] = codebook[(uint32_t)(group >> 6 * bits) & mask];
    out[7] = codebook[(uint32_t)(group >> 7 * bits) & mask];
    data += bits;
    out += 8;
  }
  for (uint32_t at = 0, window = 0, left = 0; count > 0; count--) { /* a row ends at a whole byte */
    if (left < (uint32_t)bits) {
      window |= (uint32_t)data[at++] << left;
      left += 8u;
    }
    *out++ = codebook[window & mask];
    window >>= bits;
    left -= (uint32_t)bits;
  }
}

TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_unpack_1(const uint8_t *data, const int8_t *codebook, int8_t *out,
                                                   int32_t count) {
  tvmt_unpack_bits(data, codebook, out, count, 1);
}

TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_unpack_2(const uint8_t *data, const int8_t *codebook, int8_t *out,
                                                   int32_t count) {
  tvmt_unpack_bits(data, codebook, out, count, 2);
}

TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_unpack_3(const uint8_t *data, const int8_t *codebook, int8_t *out,
                                                   int32_t count) {
  tvmt_unpack_bits(data, codebook, out, count, 3);
}

TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_unpack_4(const uint8_t *data, const int8_t *codebook, int8_t *out,
                                                   int32_t count) {
  tvmt_unpack_bits(data, codebook, out, count, 4);
}

TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_unpack_5(const uint8_t *data, const int8_t *codebook, int8_t *out,
                                                   int32_t count) {
  tvmt_unpack_bits(data, codebook, out, count, 5);
}

TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_unpack_6(const uint8_t *data, const int8_t *codebook, int8_t *out,
                                                   int32_t count) {
  tvmt_unpack_bits(data, codebook, out, count, 6);
}

TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_unpack_7(const uint8_t *data, const int8_t *codebook, int8_t *out,
                                                   int32_t count) {
  tvmt_unpack_bits(data, codebook, out, count, 7);
}

/* out[i] = codebook[index i].
 *
 * data: `count` indices, a whole number of bytes. codebook: 2^bits values, so that no index lies beyond it. bits: 1 to 7,
 * a constant where this is called: only the loop for it stays in the program.
 */
TVMT_INLINE void tvmt_unpack_s8(const uint8_t *data, const int8_t *codebook, int8_t *out, int32_t count, int32_t bits) {
  switch (bits) {
    case 1: tvmt_unpack_1(data, codebook, out, count); break;
    case 2: tvmt_unpack_2(data, codebook, out, count); break;
    case 3: tvmt_unpack_3(data, codebook, out, count); break;
    case 4: tvmt_unpack_4(data, codebook, out, count); break;
    case 5: tvmt_unpack_5(data, codebook, out, count); break;
    case 6: tvmt_unpack_6(data, codebook, out, count); break;
    default: tvmt_unpack_7(data, codebook, out, count); break;
  }
}

#endif
