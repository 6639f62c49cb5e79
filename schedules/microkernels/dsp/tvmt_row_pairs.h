/* Products of one widened row with pairs of weights: a single token. Four columns share the lanes of the row. */
#ifndef TVMT_ROW_PAIRS_H
#define TVMT_ROW_PAIRS_H

#include "tvmt_pairs.h"
#include "tvmt_weights.h"

#if TVMT_DSP

/* r9, r10: four elements of the row; r11, r12: the same of two columns; lr: lanes of one. */
#define TVMT_ROW_PAIR_S8(W, FIRST, SECOND)         \
  "ldrd r11, r12, [" W "], #8\n\t"                 \
  "sxtb16 lr, r11\n\t"                             \
  "smlad " FIRST ", r9, lr, " FIRST "\n\t"         \
  "sxtb16 r11, r11, ror #8\n\t"                    \
  "smlad " SECOND ", r9, r11, " SECOND "\n\t"      \
  "sxtb16 lr, r12\n\t"                             \
  "smlad " FIRST ", r10, lr, " FIRST "\n\t"        \
  "sxtb16 r12, r12, ror #8\n\t"                    \
  "smlad " SECOND ", r10, r12, " SECOND "\n\t"
#define TVMT_ROW_PAIR_S16(W, FIRST, SECOND)        \
  "ldrd r11, r12, [" W "], #8\n\t"                 \
  "smlad " FIRST ", r9, r11, " FIRST "\n\t"        \
  "smlad " SECOND ", r9, r12, " SECOND "\n\t"      \
  "ldrd r11, r12, [" W "], #8\n\t"                 \
  "smlad " FIRST ", r10, r11, " FIRST "\n\t"       \
  "smlad " SECOND ", r10, r12, " SECOND "\n\t"
#define TVMT_ROW_STEP(PAIR)        \
  "ldrd r9, r10, [r0], #8\n\t"     \
  PAIR("r1", "r5", "r6") PAIR("r2", "r7", "r8")
#define TVMT_ROW_LOOP(STEP)        \
  "push {r3-r11, lr}\n\t"          \
  "ldr r4, [sp, #40]\n\t"          \
  "ldm r3, {r5-r8}\n\t"            \
  "add r2, r2, r1\n\t"             \
  "sub r3, r4, r0\n\t"             \
  "ands r3, r3, #31\n\t"           \
  "beq 2f\n\t"                     \
  "add r3, r3, r0\n"               \
  "1:\n\t" STEP                    \
  "cmp r0, r3\n\t"                 \
  "bne 1b\n"                       \
  "2:\n\t"                         \
  "cmp r0, r4\n\t"                 \
  "beq 4f\n"                       \
  "3:\n\t" STEP STEP STEP STEP     \
  "cmp r0, r4\n\t"                 \
  "bne 3b\n"                       \
  "4:\n\t"                         \
  "pop {r3}\n\t"                   \
  "stm r3, {r5-r8}\n\t"            \
  "pop {r4-r11, pc}\n"

/* acc[j] += x * column j, for two pairs of columns `w_stride` bytes apart and the widened words from x to end, at least
 * two: eight words at a time behind those that are left over. */
TVMT_FUNCTION TVMT_ASSEMBLY TVMT_CODE_SECTION void tvmt_row_two_pairs_s8(const uint32_t *x, const void *w,
                                                                         int32_t w_stride, int32_t *acc,
                                                                         const uint32_t *end) {
  (void)x, (void)w, (void)w_stride, (void)acc, (void)end;
  __asm__(TVMT_ROW_LOOP(TVMT_ROW_STEP(TVMT_ROW_PAIR_S8)));
}

TVMT_FUNCTION TVMT_ASSEMBLY TVMT_CODE_SECTION void tvmt_row_two_pairs_s16(const uint32_t *x, const void *w,
                                                                          int32_t w_stride, int32_t *acc,
                                                                          const uint32_t *end) {
  (void)x, (void)w, (void)w_stride, (void)acc, (void)end;
  __asm__(TVMT_ROW_LOOP(TVMT_ROW_STEP(TVMT_ROW_PAIR_S16)));
}

/* Finishes four accumulators of adjacent columns, whose multipliers are given. */
TVMT_INLINE void tvmt_row_pairs_finish(int8_t *y, const int32_t *acc, const int32_t *multiplier, const tvmt_pairs *c,
                                 int finish) {
  for (int32_t j = 0; j < 4; j++) {
    const int32_t value = tvmt_shift_left(acc[j], c->shift);
    int8_t *to = y + (j >> 1) * c->two_cols;
    if (finish == TVMT_PAIRS_S32) {
      ((int32_t *)(void *)to)[j & 1] = tvmt_multiply_high(value, multiplier[j]);
    } else {
      const int8_t result = tvmt_saturate_s8(tvmt_multiply_high_add(c->zero_point, value, multiplier[j]));
      to[j & 1] = finish == TVMT_PAIRS_TABLE_S8 ? c->table[result + 128] : result;
    }
  }
}

/* The columns in fours; returns how many. */
TVMT_INLINE int32_t tvmt_row_pair_fours(const uint32_t *x, const uint32_t *end, int8_t *y, const tvmt_pairs *c,
                                        int finish) {
  const int8_t *w = (const int8_t *)c->w;
  int32_t j = 0;
  for (; j + 3 < c->cols; j += 4) {
    int32_t acc[4] = {c->bias[j], c->bias[j + 1], c->bias[j + 2], c->bias[j + 3]};
    if (TVMT_WIDE_WEIGHTS) {
      tvmt_row_two_pairs_s16(x, w, c->w_stride, acc, end);
    } else {
      tvmt_row_two_pairs_s8(x, w, c->w_stride, acc, end);
    }
    tvmt_row_pairs_finish(y, acc, c->multiplier + j, c, finish);
    w += 2 * c->w_stride;
    y += 2 * c->two_cols;
  }
  return j;
}

#endif

/* As tvmt_pairs_rows, for one row; finish: S8, TABLE_S8 or S32. */
TVMT_FUNCTION TVMT_CODE_SECTION __attribute__((noinline)) void tvmt_row_pairs(const uint32_t *x, void *out,
                                                                              const tvmt_pairs *c, int finish) {
  const uint32_t *end = x + 2 * ((c->depth + 3) >> 2);
  int8_t *y = (int8_t *)out;
  int32_t j = 0;
#if TVMT_DSP
  if (finish == TVMT_PAIRS_S32) {
    j = tvmt_row_pair_fours(x, end, y, c, TVMT_PAIRS_S32);
  } else if (finish == TVMT_PAIRS_S8) {
    j = tvmt_row_pair_fours(x, end, y, c, TVMT_PAIRS_S8);
  } else {
    j = tvmt_row_pair_fours(x, end, y, c, TVMT_PAIRS_TABLE_S8);
  }
#endif
  for (; j < c->cols; j += 2) {
    tvmt_pairs_one(x, end, y, 1, j, c, finish, TVMT_WIDE_WEIGHTS);
  }
}

#endif
