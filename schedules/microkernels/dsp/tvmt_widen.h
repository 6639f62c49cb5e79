/* Rows of int8 (or uint8) widened to 16-bit lanes, in the order in which tvmt_strip.h reads them.
 *
 * Four elements of a row are a word of even lanes and a word of odd lanes. A group holds the same four elements of
 * every row, row after row. When the depth is not a multiple of four, the first group holds the elements behind the
 * whole words, filled up with zeros; the others follow in order.
 */
#ifndef TVMT_WIDEN_H
#define TVMT_WIDEN_H

#include "tvmt_assembly.h"
#include "tvmt_simd.h"

/* How the bytes of a row are read. */
enum { TVMT_ROWS_S8 = 0, TVMT_ROWS_U8 = 1 };

#if TVMT_DSP

/* r0: strip; r1, r2: rows a and b, a word of each; r3: words; r8: bytes from group to group. */
#define TVMT_WIDEN_WORDS(EXTEND)      \
  "ldr r5, [r1], #4\n\t"              \
  "ldr r7, [r2], #4\n\t"              \
  EXTEND " r4, r5\n\t"                \
  EXTEND " r5, r5, ror #8\n\t"        \
  EXTEND " r6, r7\n\t"                \
  EXTEND " r7, r7, ror #8\n\t"        \
  "stm r0, {r4-r7}\n\t"               \
  "add r0, r8\n\t"
#define TVMT_WIDEN_PAIR(EXTEND)                                                                                 \
  "push {r4-r8, lr}\n\t"                                                                                        \
  "ldr r8, [sp, #24]\n\t"                                                                                       \
  "ands lr, r3, #3\n\t"                                                                                         \
  "beq 2f\n"                                                                                                    \
  "1:\n\t" TVMT_WIDEN_WORDS(EXTEND)                                                                             \
  "sub r3, #1\n\t"                                                                                              \
  "subs lr, lr, #1\n\t"                                                                                         \
  "bne 1b\n"                                                                                                    \
  "2:\n\t"                                                                                                      \
  "cmp r3, #0\n\t"                                                                                              \
  "beq 4f\n"                                                                                                    \
  "3:\n\t" TVMT_WIDEN_WORDS(EXTEND) TVMT_WIDEN_WORDS(EXTEND) TVMT_WIDEN_WORDS(EXTEND) TVMT_WIDEN_WORDS(EXTEND)  \
  "subs r3, #4\n\t"                                                                                             \
  "bne 3b\n"                                                                                                    \
  "4:\n\t"                                                                                                      \
  "pop {r4-r8, pc}\n"

/* `words` > 0 whole words of rows a and b, `step` bytes from group to group: those beyond a multiple of four, then
 * fours. */
TVMT_ASSEMBLY TVMT_CODE_SECTION void tvmt_widen_pair_s8(uint32_t *to, const uint8_t *a, const uint8_t *b,
                                                                      int32_t words, int32_t step) {
  TVMT_IN_ASSEMBLY((void)to, (void)a, (void)b, (void)words, (void)step)
  __asm__(TVMT_WIDEN_PAIR("sxtb16"));
}

TVMT_ASSEMBLY TVMT_CODE_SECTION void tvmt_widen_pair_u8(uint32_t *to, const uint8_t *a, const uint8_t *b,
                                                                      int32_t words, int32_t step) {
  TVMT_IN_ASSEMBLY((void)to, (void)a, (void)b, (void)words, (void)step)
  __asm__(TVMT_WIDEN_PAIR("uxtb16"));
}

TVMT_INLINE void tvmt_widen_pair(uint32_t *to, const uint8_t *a, const uint8_t *b, int32_t words, int32_t step,
                                 int rows_type) {
  if (rows_type == TVMT_ROWS_U8) {
    tvmt_widen_pair_u8(to, a, b, words, step);
  } else {
    tvmt_widen_pair_s8(to, a, b, words, step);
  }
}

#endif

/* Widens one word of a row to even and odd lanes. */
TVMT_INLINE void tvmt_widen_word(uint32_t *to, uint32_t word, int rows_type) {
  to[0] = rows_type == TVMT_ROWS_U8 ? tvmt_even_u8(word) : tvmt_even_s8(word);
  to[1] = rows_type == TVMT_ROWS_U8 ? tvmt_odd_u8(word) : tvmt_odd_s8(word);
}

/* to: 2 * rows * ceil(depth / 4) words. from: `rows` rows of `depth` bytes, `stride` bytes apart. */
TVMT_INLINE void tvmt_widen(uint32_t *to, const uint8_t *from, int32_t rows, int32_t stride, int32_t depth,
                            int rows_type) {
  const int32_t words = depth >> 2, tail = depth & 3;
  if (tail != 0) {
    for (int32_t i = 0; i < rows; i++) {
      const uint8_t *last = from + i * stride + 4 * words;
      uint32_t word = last[0];
      word |= tail > 1 ? (uint32_t)last[1] << 8 : 0U;
      word |= tail > 2 ? (uint32_t)last[2] << 16 : 0U;
      tvmt_widen_word(to + 2 * i, word, rows_type);
    }
    to += 2 * rows;
  }
  int32_t i = 0;
#if TVMT_DSP
  for (; words > 0 && i + 1 < rows; i += 2) {
    tvmt_widen_pair(to + 2 * i, from + i * stride, from + (i + 1) * stride, words, 8 * rows, rows_type);
  }
#endif
  for (; i < rows; i++) {
    const uint8_t *row = from + i * stride, *end = row + 4 * words;
    for (uint32_t *lanes = to + 2 * i; row != end; row += 4) {
      tvmt_widen_word(lanes, tvmt_load_word(row), rows_type);
      lanes += 2 * rows;
    }
  }
}

TVMT_SHARED TVMT_CODE_SECTION void tvmt_widen_s8(uint32_t *to, const int8_t *from,
                                                                             int32_t rows, int32_t stride,
                                                                             int32_t depth) {
  tvmt_widen(to, (const uint8_t *)from, rows, stride, depth, TVMT_ROWS_S8);
}

TVMT_SHARED TVMT_CODE_SECTION void tvmt_widen_u8(uint32_t *to, const uint8_t *from,
                                                                             int32_t rows, int32_t stride,
                                                                             int32_t depth) {
  tvmt_widen(to, from, rows, stride, depth, TVMT_ROWS_U8);
}

#endif
