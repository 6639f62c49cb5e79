/* Rows of int8 (or uint8) widened to words of two elements, in the order in which tvmt_pairs.h reads them.
 *
 * Word `rows` * k + i holds elements 2 * k and 2 * k + 1 of row i. The depth is filled up with zeros to a multiple of
 * four elements.
 */
#ifndef TVMT_WIDEN_PAIRS_H
#define TVMT_WIDEN_PAIRS_H

#include "tvmt_simd.h"

/* Elements 0 and 1 of a word whose even and odd lanes are given. */
TVMT_INLINE uint32_t tvmt_first_lanes(uint32_t even, uint32_t odd) { return (even & 0xFFFFU) | odd << 16; }

/* Elements 2 and 3. */
TVMT_INLINE uint32_t tvmt_last_lanes(uint32_t even, uint32_t odd) { return even >> 16 | (odd & 0xFFFF0000U); }

/* One word of a row, to two words `rows` words apart. */
TVMT_INLINE void tvmt_widen_pair_word(uint32_t *to, uint32_t word, int32_t rows, int is_signed) {
  const uint32_t even = is_signed ? tvmt_even_s8(word) : tvmt_even_u8(word);
  const uint32_t odd = is_signed ? tvmt_odd_s8(word) : tvmt_odd_u8(word);
  to[0] = tvmt_first_lanes(even, odd);
  to[rows] = tvmt_last_lanes(even, odd);
}

#if TVMT_DSP

/* A word of rows a and b of four; 32 bytes from a group of four elements to the next. */
#define TVMT_WIDEN_TWO(EXTEND)                \
  "ldr r1, [%[a]], #4\n\t"                    \
  "ldr r3, [%[b]], #4\n\t"                    \
  EXTEND " r0, r1\n\t"                        \
  EXTEND " r1, r1, ror #8\n\t"                \
  EXTEND " r2, r3\n\t"                        \
  EXTEND " r3, r3, ror #8\n\t"                \
  "pkhbt r4, r0, r1, lsl #16\n\t"             \
  "pkhbt r5, r2, r3, lsl #16\n\t"             \
  "pkhtb r0, r1, r0, asr #16\n\t"             \
  "pkhtb r2, r3, r2, asr #16\n\t"             \
  "strd r0, r2, [%[to], #16]\n\t"             \
  "strd r4, r5, [%[to]], #32\n\t"
/* `words` > 0 words: those beyond a multiple of four, then fours. */
#define TVMT_WIDEN_ROWS(EXTEND)                                                                          \
  __asm__ volatile(                                                                                      \
      "ands r4, %[words], #3\n\t"                                                                        \
      "beq 2f\n\t"                                                                                       \
      "sub %[words], r4\n\t"                                                                             \
      "add %[words], %[words], r4, lsl #24\n"                                                            \
      "1:\n\t" TVMT_WIDEN_TWO(EXTEND)                                                                    \
      "sub %[words], #0x1000000\n\t"                                                                     \
      "lsrs r4, %[words], #24\n\t"                                                                       \
      "bne 1b\n\t"                                                                                       \
      "cmp %[words], #0\n\t"                                                                             \
      "beq 3f\n"                                                                                         \
      "2:\n\t" TVMT_WIDEN_TWO(EXTEND) TVMT_WIDEN_TWO(EXTEND) TVMT_WIDEN_TWO(EXTEND) TVMT_WIDEN_TWO(EXTEND) \
      "subs %[words], #4\n\t"                                                                            \
      "bne 2b\n"                                                                                         \
      "3:"                                                                                               \
      : [to] "+&r"(to), [a] "+&r"(a), [b] "+&r"(b), [words] "+&r"(words)                                 \
      :                                                                                                  \
      : "r0", "r1", "r2", "r3", "r4", "r5", "cc", "memory")

/* `words` whole words of rows a and b of a strip of four. */
TVMT_INLINE void tvmt_widen_two_rows(uint32_t *to, const uint8_t *a, const uint8_t *b, int32_t words, int is_signed) {
  if (words == 0) {
    return;
  }
  if (is_signed) {
    TVMT_WIDEN_ROWS("sxtb16");
  } else {
    TVMT_WIDEN_ROWS("uxtb16");
  }
}

#endif

/* to: rows * 2 * ceil(depth / 4) words. from: 1 to 4 rows of `depth` bytes, `stride` bytes apart. */
TVMT_INLINE void tvmt_widen_pairs(uint32_t *to, const uint8_t *from, int32_t rows, int32_t stride, int32_t depth,
                                  int is_signed) {
  const int32_t words = depth >> 2, tail = depth & 3;
  int32_t i = 0;
#if TVMT_DSP
  for (; rows == 4 && i < 4; i += 2) {
    tvmt_widen_two_rows(to + i, from + i * stride, from + (i + 1) * stride, words, is_signed);
  }
#endif
  for (; i < rows; i++) {
    const uint8_t *row = from + i * stride;
    for (int32_t k = 0; k < words; k++) {
      tvmt_widen_pair_word(to + i + 2 * rows * k, tvmt_load_word(row + 4 * k), rows, is_signed);
    }
  }
  if (tail != 0) {
    for (i = 0; i < rows; i++) {
      const uint8_t *last = from + i * stride + 4 * words;
      uint32_t word = last[0];
      word |= tail > 1 ? (uint32_t)last[1] << 8 : 0U;
      word |= tail > 2 ? (uint32_t)last[2] << 16 : 0U;
      tvmt_widen_pair_word(to + i + 2 * rows * words, word, rows, is_signed);
    }
  }
}

TVMT_FUNCTION TVMT_CODE_SECTION __attribute__((noinline)) void tvmt_widen_pairs_s8(uint32_t *to, const int8_t *from,
                                                                                   int32_t rows, int32_t stride,
                                                                                   int32_t depth) {
  tvmt_widen_pairs(to, (const uint8_t *)from, rows, stride, depth, 1);
}

TVMT_FUNCTION TVMT_CODE_SECTION __attribute__((noinline)) void tvmt_widen_pairs_u8(uint32_t *to, const uint8_t *from,
                                                                                   int32_t rows, int32_t stride,
                                                                                   int32_t depth) {
  tvmt_widen_pairs(to, from, rows, stride, depth, 0);
}

#endif
