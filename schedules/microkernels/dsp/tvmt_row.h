/* Products of one widened row with int8 columns: a single token. Strips would widen every column for one row. */
#ifndef TVMT_ROW_H
#define TVMT_ROW_H

#include "tvmt_strip.h"

#if TVMT_DSP

/* r9, r10: lanes of the row; r11, r12: of a column. */
#define TVMT_ROW_COLUMN(W, ACC)              \
  "ldr r11, [" W "], #4\n\t"                 \
  "sxtb16 r12, r11, ror #8\n\t"              \
  "sxtb16 r11, r11\n\t"                      \
  "smlad " ACC ", r10, r12, " ACC "\n\t"     \
  "smlad " ACC ", r9, r11, " ACC "\n\t"
#define TVMT_ROW_STEP                        \
  "ldrd r9, r10, [r0], #8\n\t"               \
  TVMT_ROW_COLUMN("r1", "r5")                \
  TVMT_ROW_COLUMN("r2", "r6")                \
  TVMT_ROW_COLUMN("r3", "r7")                \
  TVMT_ROW_COLUMN("r4", "r8")

/* acc[j] += x * column j, for four columns `w_stride` bytes apart and the widened words from x to end, at least one:
 * eight words at a time behind those that are left over. */
TVMT_ASSEMBLY TVMT_CODE_SECTION void tvmt_row_fours(const uint32_t *x, const int8_t *w,
                                                                  int32_t w_stride, int32_t *acc,
                                                                  const uint32_t *end) {
  TVMT_IN_ASSEMBLY((void)x, (void)w, (void)w_stride, (void)acc, (void)end)
  __asm__(
      "push {r3-r11, lr}\n\t"
      "ldr r10, [sp, #40]\n\t"
      "ldm r3, {r5-r8}\n\t"
      "add r3, r1, r2, lsl #1\n\t"
      "add r4, r3, r2\n\t"
      "add r2, r2, r1\n\t"
      "sub lr, r10, r0\n\t"
      "ands lr, lr, #63\n\t"
      "beq 2f\n\t"
      "add lr, lr, r0\n"
      "1:\n\t" TVMT_ROW_STEP
      "cmp r0, lr\n\t"
      "bne 1b\n"
      "2:\n\t"
      "ldr lr, [sp, #40]\n\t"
      "cmp r0, lr\n\t"
      "beq 4f\n"
      "3:\n\t" TVMT_ROW_STEP TVMT_ROW_STEP TVMT_ROW_STEP TVMT_ROW_STEP
      TVMT_ROW_STEP TVMT_ROW_STEP TVMT_ROW_STEP TVMT_ROW_STEP
      "cmp r0, lr\n\t"
      "bne 3b\n"
      "4:\n\t"
      "pop {r3}\n\t"
      "stm r3, {r5-r8}\n\t"
      "pop {r4-r11, pc}\n");
}

/* What the bytes behind the whole words, whose lanes of the row are x[0] and x[1], add to four accumulators. */
TVMT_SHARED TVMT_CODE_SECTION void tvmt_row_tail(const uint32_t *x, const int8_t *w,
                                                                             int32_t w_stride, int32_t *acc,
                                                                             int32_t tail) {
  for (int32_t j = 0; j < 4; j++) {
    uint32_t word = 0;
    memcpy(&word, w + j * w_stride, (size_t)tail);
    acc[j] = tvmt_multiply_lanes(x[0], tvmt_even_s8(word), acc[j]);
    acc[j] = tvmt_multiply_lanes(x[1], tvmt_odd_s8(word), acc[j]);
  }
}

/* Finishes one accumulator; returns where the next output goes. */
TVMT_INLINE void *tvmt_row_finish(void *out, int32_t acc, int32_t multiplier, const tvmt_columns *c, int finish) {
  const int32_t value = tvmt_shift_left(acc, c->shift);
  if (finish == TVMT_FINISH_S32) {
    *(int32_t *)out = tvmt_multiply_high(value, multiplier);
  } else {
    *(int8_t *)out = tvmt_saturate_s8(tvmt_multiply_high_add(c->zero_point, value, multiplier));
  }
  return (char *)out + c->col_stride;
}

#endif

/* As tvmt_strip, for one row; finish: TVMT_FINISH_S8 or TVMT_FINISH_S32. */
TVMT_INLINE void tvmt_row(const uint32_t *x, void *out, const tvmt_columns *c, int finish) {
  tvmt_columns rest = *c;
#if TVMT_DSP
  const int32_t whole = c->depth & ~3, tail = c->depth & 3;
  const uint32_t *words = tail != 0 ? x + 2 : x;
  for (; rest.cols > 3 && whole > 0; rest.cols -= 4) {
    const int32_t *multiplier = rest.multiplier;
    int32_t acc[4] = {rest.bias[0], rest.bias[1], rest.bias[2], rest.bias[3]};
    if (tail != 0) {
      tvmt_row_tail(x, rest.w + whole, c->w_stride, acc, tail);
    }
    tvmt_row_fours(words, rest.w, c->w_stride, acc, words + (whole >> 1));
    out = tvmt_row_finish(out, acc[0], multiplier[0], c, finish);
    out = tvmt_row_finish(out, acc[1], multiplier[1], c, finish);
    out = tvmt_row_finish(out, acc[2], multiplier[2], c, finish);
    out = tvmt_row_finish(out, acc[3], multiplier[3], c, finish);
    rest.w += 4 * c->w_stride;
    rest.bias += 4;
    rest.multiplier += 4;
  }
  if (rest.cols == 0) {
    return;
  }
#endif
  tvmt_strip(x, out, 1, &rest, finish);
}

#endif
