/* Products of a strip of up to four int8 rows with a column of int4 weights.
 *
 * Masked with 0x000F000F, a word of eight packed weights gives two lanes of q + 8 at a time, weights i and i + 4 of the
 * eight: one instruction for two weights, which serve four rows. The strip is widened once to lanes in the same order,
 * and its groups carry the sums that the 8 stands for: sum q x = sum (q + 8) x - 8 sum x. The scale of a group is one
 * multiplication a row. Sums are modulo 2**32, so only the final value has to fit an int32_t. No alignment is needed.
 */
#ifndef TVMT_W4_H
#define TVMT_W4_H

#include "tvmt_assembly.h"
#include "tvmt_simd.h"
#include "tvmt_w4_format.h"
#include "tvmt_w4_steps.h"

/* A strip of `count` rows, widened for one row (count 1) or for four. A group is a word a row, -8 * sum of its
 * elements, and then for each eight elements, filled up with zeros, four words of lanes a row: elements i and i + 4.
 * The words of all rows stand side by side. */
typedef struct {
  const uint32_t *words;
  int32_t count, depth;
} tvmt_w4_strip;

/* Sum of both lanes, added to sum. */
TVMT_INLINE int32_t tvmt_w4_sum(uint32_t lanes, int32_t sum) { return tvmt_multiply_lanes(lanes, 0x00010001U, sum); }

/* The low lanes of a and b. */
TVMT_INLINE uint32_t tvmt_w4_low(uint32_t a, uint32_t b) {
#if TVMT_DSP
  uint32_t lanes;
  __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(lanes) : "r"(a), "r"(b));
  return lanes;
#else
  return (a & 0xFFFFU) | b << 16;
#endif
}

/* The high lanes of a and b. */
TVMT_INLINE uint32_t tvmt_w4_high(uint32_t a, uint32_t b) {
#if TVMT_DSP
  uint32_t lanes;
  __asm__("pkhtb %0, %1, %2, asr #16" : "=r"(lanes) : "r"(b), "r"(a));
  return lanes;
#else
  return (b & 0xFFFF0000U) | a >> 16;
#endif
}

/* Lanes of eight elements, the bytes of two words, to to[0], to[side], ...; returns sum + their sum. */
TVMT_INLINE int32_t tvmt_w4_lanes(uint32_t *to, uint32_t word0, uint32_t word1, int32_t side, int32_t sum) {
  const uint32_t even0 = tvmt_even_s8(word0), odd0 = tvmt_odd_s8(word0);
  const uint32_t even1 = tvmt_even_s8(word1), odd1 = tvmt_odd_s8(word1);
  to[0] = tvmt_w4_low(even0, even1);
  to[side] = tvmt_w4_low(odd0, odd1);
  to[2 * side] = tvmt_w4_high(even0, even1);
  to[3 * side] = tvmt_w4_high(odd0, odd1);
  return tvmt_w4_sum(even0, tvmt_w4_sum(odd0, tvmt_w4_sum(even1, tvmt_w4_sum(odd1, sum))));
}

/* One row of a strip of `side` rows. */
TVMT_SHARED TVMT_CODE_SECTION void tvmt_w4_widen(uint32_t *to, const int8_t *from,
                                                                             int32_t side, int32_t depth) {
  while (depth > 0) {
    const int32_t size = depth < TVMT_W4_GROUP ? depth : TVMT_W4_GROUP;
    const int8_t *whole = from + (size & ~7), *end = from + size;
    int32_t *head = (int32_t *)(void *)to, sum = 0;
    to += side;
    for (; from != whole; from += 8) {
      sum = tvmt_w4_lanes(to, tvmt_load_word(from), tvmt_load_word(from + 4), side, sum);
      to += 4 * side;
    }
    if (from != end) {
      uint32_t last[2] = {0, 0};
      memcpy(last, from, (size_t)(end - from));
      sum = tvmt_w4_lanes(to, last[0], last[1], side, sum);
      to += 4 * side;
      from = end;
    }
    *head = -8 * sum;
    depth -= size;
  }
}

/* The strip of `count` rows from x, `stride` elements apart. workspace: a word for each group of TVMT_W4_GROUP elements
 * and four for each eight, times one row (count 1) or four, aligned to 4 bytes. */
TVMT_INLINE void tvmt_w4_take(tvmt_w4_strip *strip, const int8_t *x, int32_t stride, int32_t count, int32_t depth,
                              int16_t *workspace) {
  uint32_t *words = (uint32_t *)(void *)workspace;
  const int32_t side = count == 1 ? 1 : TVMT_W4_ROWS;
  for (int32_t i = 0; i < side; i++) {
    tvmt_w4_widen(words + i, x + tvmt_w4_row(i, count) * stride, side, depth);
  }
  strip->words = words;
  strip->count = count;
  strip->depth = depth;
}

#if TVMT_DSP

/* One row: r4: its sum; the other registers as for four rows in tvmt_w4_steps.h. */
#define TVMT_W4_WORD_OF_ONE                 \
  "ldr.w lr, [r1], #4\n\t"                  \
  "ldm.w r0!, {r8-r11}\n\t"                 \
  "and r12, r3, lr\n\t"                     \
  "smlad r4, r8, r12, r4\n\t"               \
  "and r12, r3, lr, lsr #4\n\t"             \
  "smlad r4, r9, r12, r4\n\t"               \
  "and r12, r3, lr, lsr #8\n\t"             \
  "smlad r4, r10, r12, r4\n\t"              \
  "and r12, r3, lr, lsr #12\n\t"            \
  "smlad r4, r11, r12, r4\n\t"
#define TVMT_W4_START_OF_ONE "ldr r4, [r0], #4\n\t"
#define TVMT_W4_END_OF_ONE                  \
  "ldrb r12, [r2], #1\n\t"                  \
  "ldr lr, [sp, #4]\n\t"                    \
  "ldr r8, [lr]\n\t"                        \
  "mla r8, r4, r12, r8\n\t"                 \
  "str r8, [lr]\n\t"

#define TVMT_W4_GROUP_OF_ONE TVMT_W4_WORD_OF_ONE TVMT_W4_WORD_OF_ONE TVMT_W4_WORD_OF_ONE TVMT_W4_WORD_OF_ONE

/* Whole groups, then the words of a shorter one. */
#define TVMT_W4_COLUMN(START, GROUP, WORD, END) \
  "push {r2-r11, lr}\n\t"                       \
  "ldr r12, [sp, #44]\n\t"                      \
  "mov.w r3, #0x000F000F\n\t"                   \
  "cmp r0, r12\n\t"                             \
  "beq.w 2f\n"                                  \
  "1:\n\t" START GROUP END                      \
  "ldr r12, [sp, #44]\n\t"                      \
  "cmp r0, r12\n\t"                             \
  "bne.w 1b\n"                                  \
  "2:\n\t"                                      \
  "ldr r12, [sp, #48]\n\t"                      \
  "cmp r12, #0\n\t"                             \
  "beq.w 4f\n\t" START                          \
  "3:\n\t" WORD                                 \
  "ldr r12, [sp, #48]\n\t"                      \
  "subs r12, #1\n\t"                            \
  "str r12, [sp, #48]\n\t"                      \
  "bne.w 3b\n\t" END                            \
  "4:\n\t"                                      \
  "pop {r2-r11, pc}\n"

/* acc[i] += row i . column, for four rows; whole: where the strip's groups of 32 end, words: of a shorter last one. */
TVMT_ASSEMBLY TVMT_CODE_SECTION void tvmt_w4_four_rows(
    const uint32_t *x, const uint8_t *w, const uint8_t *groups,
    int32_t *acc, const uint32_t *whole, int32_t words) {
  TVMT_IN_ASSEMBLY((void)x, (void)w, (void)groups, (void)acc, (void)whole, (void)words)
  __asm__(TVMT_W4_COLUMN(TVMT_W4_START_OF_FOUR, TVMT_W4_GROUP_OF_FOUR, TVMT_W4_WORD_OF_FOUR, TVMT_W4_END_OF_FOUR));
}

/* The same for one row. */
TVMT_ASSEMBLY TVMT_CODE_SECTION void tvmt_w4_one_row(
    const uint32_t *x, const uint8_t *w, const uint8_t *groups,
    int32_t *acc, const uint32_t *whole, int32_t words) {
  TVMT_IN_ASSEMBLY((void)x, (void)w, (void)groups, (void)acc, (void)whole, (void)words)
  __asm__(TVMT_W4_COLUMN(TVMT_W4_START_OF_ONE, TVMT_W4_GROUP_OF_ONE, TVMT_W4_WORD_OF_ONE, TVMT_W4_END_OF_ONE));
}

#else

/* A group of `words` words of a column with a strip of `side` rows: acc[i] += scale * sum. Returns the next group. */
TVMT_INLINE const uint32_t *tvmt_w4_group(const uint32_t *x, const uint8_t *w, int32_t scale, int32_t *acc,
                                          int32_t words, int32_t side) {
  for (int32_t i = 0; i < side; i++) {
    int32_t sum = (int32_t)x[i];
    for (int32_t k = 0; k < 4 * words; k++) {
      const uint32_t weights = tvmt_load_word(w + (k & ~3)) >> (4 * (k & 3)) & 0x000F000FU;
      sum = tvmt_multiply_lanes(x[(k + 1) * side + i], weights, sum);
    }
    acc[i] = tvmt_add(acc[i], sum * scale);
  }
  return x + (4 * words + 1) * side;
}

TVMT_INLINE void tvmt_w4_column(const uint32_t *x, const uint8_t *w, const uint8_t *groups, int32_t *acc,
                                const uint32_t *whole, int32_t words, int32_t side) {
  for (; x != whole; w += TVMT_W4_GROUP / 2) {
    x = tvmt_w4_group(x, w, *groups++, acc, TVMT_W4_GROUP / 8, side);
  }
  if (words > 0) {
    tvmt_w4_group(x, w, *groups, acc, words, side);
  }
}

TVMT_FUNCTION void tvmt_w4_four_rows(const uint32_t *x, const uint8_t *w, const uint8_t *groups, int32_t *acc,
                                     const uint32_t *whole, int32_t words) {
  tvmt_w4_column(x, w, groups, acc, whole, words, TVMT_W4_ROWS);
}

TVMT_FUNCTION void tvmt_w4_one_row(const uint32_t *x, const uint8_t *w, const uint8_t *groups, int32_t *acc,
                                   const uint32_t *whole, int32_t words) {
  tvmt_w4_column(x, w, groups, acc, whole, words, 1);
}

#endif

/* acc[i] += row i . column, for row 0 of a strip of one row, else for four rows as tvmt_w4_row counts them. */
TVMT_INLINE void tvmt_w4_add_products(const tvmt_w4_strip *strip, const uint8_t *w, const uint8_t *groups,
                                      int32_t acc[TVMT_W4_ROWS]) {
  const int32_t whole = strip->depth / TVMT_W4_GROUP, words = (strip->depth % TVMT_W4_GROUP + 7) / 8;
  const int32_t group_words = 1 + TVMT_W4_GROUP / 2;
  if (strip->count == 1) {
    tvmt_w4_one_row(strip->words, w, groups, acc, strip->words + whole * group_words, words);
  } else {
    tvmt_w4_four_rows(strip->words, w, groups, acc, strip->words + whole * group_words * TVMT_W4_ROWS, words);
  }
}

#endif
