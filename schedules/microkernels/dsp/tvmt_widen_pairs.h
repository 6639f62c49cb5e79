/* Rows of int8 (or uint8) widened to words of two elements, in the order in which tvmt_pairs.h reads them.
 *
 * Word `rows` * k + i holds elements 2 * k and 2 * k + 1 of row i. The depth is filled up with zeros to a multiple of
 * four elements.
 */
#ifndef TVMT_WIDEN_PAIRS_H
#define TVMT_WIDEN_PAIRS_H

#include "tvmt_assembly.h"
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

/* r0: strip; r1, r2: rows a and b, a word of each; r3: words. 32 bytes from a group of four elements to the next. */
#define TVMT_WIDEN_TWO(EXTEND)           \
  "ldr r4, [r1], #4\n\t"                 \
  "ldr r6, [r2], #4\n\t"                 \
  EXTEND " r5, r4\n\t"                   \
  EXTEND " r4, r4, ror #8\n\t"           \
  EXTEND " r7, r6\n\t"                   \
  EXTEND " r6, r6, ror #8\n\t"           \
  "pkhbt r8, r5, r4, lsl #16\n\t"        \
  "pkhbt r9, r7, r6, lsl #16\n\t"        \
  "pkhtb r5, r4, r5, asr #16\n\t"        \
  "pkhtb r7, r6, r7, asr #16\n\t"        \
  "strd r5, r7, [r0, #16]\n\t"           \
  "strd r8, r9, [r0], #32\n\t"
#define TVMT_WIDEN_ROWS(EXTEND)                                                                          \
  "push {r4-r9, lr}\n\t"                                                                                 \
  "ands lr, r3, #3\n\t"                                                                                  \
  "beq 2f\n"                                                                                             \
  "1:\n\t" TVMT_WIDEN_TWO(EXTEND)                                                                        \
  "sub r3, #1\n\t"                                                                                       \
  "subs lr, lr, #1\n\t"                                                                                  \
  "bne 1b\n"                                                                                             \
  "2:\n\t"                                                                                               \
  "cmp r3, #0\n\t"                                                                                       \
  "beq 4f\n"                                                                                             \
  "3:\n\t" TVMT_WIDEN_TWO(EXTEND) TVMT_WIDEN_TWO(EXTEND) TVMT_WIDEN_TWO(EXTEND) TVMT_WIDEN_TWO(EXTEND)   \
  "subs r3, #4\n\t"                                                                                      \
  "bne 3b\n"                                                                                             \
  "4:\n\t"                                                                                               \
  "pop {r4-r9, pc}\n"

/* `words` whole words of rows a and b of a strip of four: those beyond a multiple of four, then fours. */
TVMT_ASSEMBLY TVMT_CODE_SECTION void tvmt_widen_two_rows_s8(uint32_t *to, const uint8_t *a,
                                                                          const uint8_t *b, int32_t words) {
  TVMT_IN_ASSEMBLY((void)to, (void)a, (void)b, (void)words)
  __asm__(TVMT_WIDEN_ROWS("sxtb16"));
}

TVMT_ASSEMBLY TVMT_CODE_SECTION void tvmt_widen_two_rows_u8(uint32_t *to, const uint8_t *a,
                                                                          const uint8_t *b, int32_t words) {
  TVMT_IN_ASSEMBLY((void)to, (void)a, (void)b, (void)words)
  __asm__(TVMT_WIDEN_ROWS("uxtb16"));
}

#endif

/* to: rows * 2 * ceil(depth / 4) words. from: 1 to 4 rows of `depth` bytes, row i at (i >> 1) * two_rows +
 * (i & 1) * row. */
TVMT_INLINE void tvmt_widen_pairs(uint32_t *to, const uint8_t *from, int32_t rows, int32_t row, int32_t two_rows,
                                  int32_t depth, int is_signed) {
  const int32_t words = depth >> 2, tail = depth & 3;
  int32_t i = 0;
#if TVMT_DSP
  for (; rows == 4 && i < 4; i += 2) {
    const uint8_t *first = from + (i >> 1) * two_rows;
    if (is_signed) {
      tvmt_widen_two_rows_s8(to + i, first, first + row, words);
    } else {
      tvmt_widen_two_rows_u8(to + i, first, first + row, words);
    }
  }
#endif
  for (; i < rows; i++) {
    const uint8_t *bytes = from + (i >> 1) * two_rows + (i & 1) * row;
    for (int32_t k = 0; k < words; k++) {
      tvmt_widen_pair_word(to + i + 2 * rows * k, tvmt_load_word(bytes + 4 * k), rows, is_signed);
    }
  }
  for (i = 0; tail != 0 && i < rows; i++) {
    const uint8_t *last = from + (i >> 1) * two_rows + (i & 1) * row + 4 * words;
    uint32_t word = last[0];
    word |= tail > 1 ? (uint32_t)last[1] << 8 : 0U;
    word |= tail > 2 ? (uint32_t)last[2] << 16 : 0U;
    tvmt_widen_pair_word(to + i + 2 * rows * words, word, rows, is_signed);
  }
}

TVMT_SHARED TVMT_CODE_SECTION void tvmt_widen_pairs_s8(uint32_t *to, const uint8_t *from,
                                                                                   int32_t rows, int32_t row,
                                                                                   int32_t two_rows, int32_t depth) {
  tvmt_widen_pairs(to, from, rows, row, two_rows, depth, 1);
}

TVMT_SHARED TVMT_CODE_SECTION void tvmt_widen_pairs_u8(uint32_t *to, const uint8_t *from,
                                                                                   int32_t rows, int32_t row,
                                                                                   int32_t two_rows, int32_t depth) {
  tvmt_widen_pairs(to, from, rows, row, two_rows, depth, 0);
}

#endif
