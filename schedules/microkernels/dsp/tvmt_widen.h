/* Rows of int8 (or uint8) widened to 16-bit lanes, in the order in which tvmt_strip.h reads them.
 *
 * Four elements of a row are a word of even lanes and a word of odd lanes. A group holds the same four elements of
 * every row, row after row. When the depth is not a multiple of four, the first group holds the elements behind the
 * whole words, filled up with zeros; the others follow in order.
 */
#ifndef TVMT_WIDEN_H
#define TVMT_WIDEN_H

#include "tvmt_simd.h"

/* How the bytes of a row are read. */
enum { TVMT_ROWS_S8 = 0, TVMT_ROWS_U8 = 1 };

#if TVMT_DSP

/* A word of rows a and b; `step` bytes from group to group. */
#define TVMT_WIDEN_WORDS(EXTEND)  \
  "ldr r1, [%[a]], #4\n\t"        \
  "ldr r3, [%[b]], #4\n\t"        \
  EXTEND " r0, r1\n\t"            \
  EXTEND " r1, r1, ror #8\n\t"    \
  EXTEND " r2, r3\n\t"            \
  EXTEND " r3, r3, ror #8\n\t"    \
  "stm %[to], {r0-r3}\n\t"        \
  "add %[to], %[step]\n\t"
/* `words` > 0 words: those beyond a multiple of four, then fours. */
#define TVMT_WIDEN_PAIR(EXTEND)                                                                               \
  __asm__ volatile(                                                                                           \
      "ands r0, %[words], #3\n\t"                                                                             \
      "beq 2f\n\t"                                                                                            \
      "bic %[words], #3\n\t"                                                                                  \
      "orr %[words], %[words], r0, lsl #24\n"                                                                 \
      "1:\n\t" TVMT_WIDEN_WORDS(EXTEND)                                                                       \
      "sub %[words], #0x1000000\n\t"                                                                          \
      "lsrs r0, %[words], #24\n\t"                                                                            \
      "bne 1b\n\t"                                                                                            \
      "cmp %[words], #0\n\t"                                                                                  \
      "beq 3f\n"                                                                                              \
      "2:\n\t" TVMT_WIDEN_WORDS(EXTEND) TVMT_WIDEN_WORDS(EXTEND)                                              \
      TVMT_WIDEN_WORDS(EXTEND) TVMT_WIDEN_WORDS(EXTEND)                                                       \
      "subs %[words], #4\n\t"                                                                                 \
      "bne 2b\n"                                                                                              \
      "3:"                                                                                                    \
      : [to] "+&r"(to), [a] "+&r"(a), [b] "+&r"(b), [words] "+&r"(words)                                      \
      : [step] "r"(step)                                                                                      \
      : "r0", "r1", "r2", "r3", "cc", "memory")

TVMT_INLINE void tvmt_widen_pair(uint32_t *to, const uint8_t *a, const uint8_t *b, int32_t words, int32_t step,
                                 int rows_type) {
  if (rows_type == TVMT_ROWS_U8) {
    TVMT_WIDEN_PAIR("uxtb16");
  } else {
    TVMT_WIDEN_PAIR("sxtb16");
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

TVMT_FUNCTION TVMT_CODE_SECTION __attribute__((noinline)) void tvmt_widen_s8(uint32_t *to, const int8_t *from,
                                                                             int32_t rows, int32_t stride,
                                                                             int32_t depth) {
  tvmt_widen(to, (const uint8_t *)from, rows, stride, depth, TVMT_ROWS_S8);
}

TVMT_FUNCTION TVMT_CODE_SECTION __attribute__((noinline)) void tvmt_widen_u8(uint32_t *to, const uint8_t *from,
                                                                             int32_t rows, int32_t stride,
                                                                             int32_t depth) {
  tvmt_widen(to, from, rows, stride, depth, TVMT_ROWS_U8);
}

#endif
