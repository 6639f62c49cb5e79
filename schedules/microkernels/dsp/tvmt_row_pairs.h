/* Products of one widened row with pairs of weights: a single token. Four columns share the lanes of the row. */
#ifndef TVMT_ROW_PAIRS_H
#define TVMT_ROW_PAIRS_H

#include "tvmt_pairs.h"
#include "tvmt_weights.h"

#if TVMT_DSP

/* r9, r10: four elements of the row; r11, r12: the same of two columns; lr: lanes of one. */
#if TVMT_WIDE_WEIGHTS
#define TVMT_ROW_PAIR(W, FIRST, SECOND)            \
  "ldrd r11, r12, [" W "], #8\n\t"                 \
  "smlad " FIRST ", r9, r11, " FIRST "\n\t"        \
  "smlad " SECOND ", r9, r12, " SECOND "\n\t"      \
  "ldrd r11, r12, [" W "], #8\n\t"                 \
  "smlad " FIRST ", r10, r11, " FIRST "\n\t"       \
  "smlad " SECOND ", r10, r12, " SECOND "\n\t"
#else
#define TVMT_ROW_PAIR(W, FIRST, SECOND)            \
  "ldrd r11, r12, [" W "], #8\n\t"                 \
  "sxtb16 lr, r11\n\t"                             \
  "smlad " FIRST ", r9, lr, " FIRST "\n\t"         \
  "sxtb16 r11, r11, ror #8\n\t"                    \
  "smlad " SECOND ", r9, r11, " SECOND "\n\t"      \
  "sxtb16 lr, r12\n\t"                             \
  "smlad " FIRST ", r10, lr, " FIRST "\n\t"        \
  "sxtb16 r12, r12, ror #8\n\t"                    \
  "smlad " SECOND ", r10, r12, " SECOND "\n\t"
#endif
#define TVMT_ROW_PAIRS_STEP(PAIR)        \
  "ldrd r9, r10, [r0], #8\n\t"     \
  PAIR("r1", "r5", "r6") PAIR("r2", "r7", "r8")
/* r0: row; r1, r2: pairs of columns; up to r3 one step at a time, then up to r4 four. The label 4 is what follows. */
#define TVMT_ROW_STEPS(STEP)       \
  "cmp r0, r3\n\t"                 \
  "beq 2f\n"                       \
  "1:\n\t" STEP                    \
  "cmp r0, r3\n\t"                 \
  "bne 1b\n"                       \
  "2:\n\t"                         \
  "cmp r0, r4\n\t"                 \
  "beq 4f\n"                       \
  "3:\n\t" STEP STEP STEP STEP     \
  "cmp r0, r4\n\t"                 \
  "bne 3b\n"
#define TVMT_ROW_SUMS(STEP)                        \
  "push {r3-r11, lr}\n\t"                          \
  "ldr r4, [sp, #40]\n\t"                          \
  "ldm r3, {r5-r8}\n\t"                            \
  "add r2, r2, r1\n\t"                             \
  "sub r3, r4, r0\n\t"                             \
  "and r3, r3, #31\n\t"                            \
  "add r3, r3, r0\n\t" TVMT_ROW_STEPS(STEP)        \
  "4:\n\t"                                         \
  "pop {r3}\n\t"                                   \
  "stm r3, {r5-r8}\n\t"                            \
  "pop {r4-r11, pc}\n"

/* acc[j] += x * column j, for two pairs of columns `w_stride` bytes apart and the widened words from x to end, at least
 * two: eight words at a time behind those that are left over. */
TVMT_ASSEMBLY TVMT_CODE_SECTION void tvmt_row_sums(const uint32_t *x, const void *w, int32_t w_stride,
                                                                 int32_t *acc, const uint32_t *end) {
  TVMT_IN_ASSEMBLY((void)x, (void)w, (void)w_stride, (void)acc, (void)end)
  __asm__(TVMT_ROW_SUMS(TVMT_ROW_PAIRS_STEP(TVMT_ROW_PAIR)));
}

#define TVMT_ROW_PAIRS_FOURS(STEP)                       \
  "push {r0-r11, lr}\n"                            \
  "5:\n\t"                                         \
  "ldr r4, [sp, #52]\n\t"                          \
  "ldrd r1, r2, [sp, #4]\n\t"                      \
  "ldm r4!, {r5-r8}\n\t"                           \
  "str r4, [sp, #52]\n\t"                          \
  "add r2, r2, r1\n\t"                             \
  "ldr r0, [sp]\n\t"                               \
  "ldrd r3, r4, [sp, #64]\n\t" TVMT_ROW_STEPS(STEP) \
  "4:\n\t"                                         \
  "ldr r4, [sp, #56]\n\t"                          \
  "ldrd r0, r1, [sp, #4]\n\t"                      \
  "ldm r4!, {r9-r12}\n\t"                          \
  "str r4, [sp, #56]\n\t"                          \
  "add r0, r0, r1, lsl #1\n\t"                     \
  "ldrd r2, r3, [sp, #72]\n\t" /* zero point, shift */ \
  "str r0, [sp, #4]\n\t"                           \
  "lsl r5, r5, r3\n\t"                             \
  "lsl r6, r6, r3\n\t"                             \
  "lsl r7, r7, r3\n\t"                             \
  "lsl r8, r8, r3\n\t"                             \
  "ldr r4, [sp, #60]\n\t"                          \
  "smmlar r5, r5, r9, r2\n\t"                      \
  "smmlar r6, r6, r10, r2\n\t"                     \
  "smmlar r7, r7, r11, r2\n\t"                     \
  "smmlar r8, r8, r12, r2\n\t"                     \
  "ssat r5, #8, r5\n\t"                            \
  "ssat r6, #8, r6\n\t"                            \
  "ssat r7, #8, r7\n\t"                            \
  "ssat r8, #8, r8\n\t"                            \
  "strb r5, [r4], #1\n\t"                          \
  "strb r6, [r4], #1\n\t"                          \
  "strb r7, [r4], #1\n\t"                          \
  "strb r8, [r4], #1\n\t"                          \
  "str r4, [sp, #60]\n\t"                          \
  "ldr r3, [sp, #12]\n\t"                          \
  "subs r3, #1\n\t"                                \
  "str r3, [sp, #12]\n\t"                          \
  "bne.w 5b\n\t"                                   \
  "add sp, #16\n\t"                                \
  "pop {r4-r11, pc}\n"

/* What S8 makes of `fours` > 0 times four columns, side by side. middle: where whole groups of eight words begin.
 *
 * Arguments and registers make one frame: 0 x, 4 w, 8 w_stride, 12 fours left, 16 saved registers, 52 bias,
 * 56 multiplier, 60 out, 64 middle, 68 end, 72 zero_point, 76 shift.
 */
TVMT_ASSEMBLY TVMT_CODE_SECTION void tvmt_row_fours_s8(
    const uint32_t *x, const void *w, int32_t w_stride, int32_t fours, const int32_t *bias, const int32_t *multiplier,
    int8_t *out, const uint32_t *middle, const uint32_t *end, int32_t zero_point, int32_t shift) {
  TVMT_IN_ASSEMBLY((void)x, (void)w, (void)w_stride, (void)fours, (void)bias, (void)multiplier, (void)out,
                   (void)middle, (void)end, (void)zero_point, (void)shift)
  __asm__(TVMT_ROW_PAIRS_FOURS(TVMT_ROW_PAIRS_STEP(TVMT_ROW_PAIR)));
}

/* What another finish makes of one group of four columns. */
TVMT_INLINE void tvmt_row_four(const uint32_t *x, const uint32_t *end, int8_t *y, int32_t j, const tvmt_pairs *c,
                               int finish) {
  int32_t acc[4] = {c->bias[j], c->bias[j + 1], c->bias[j + 2], c->bias[j + 3]};
  tvmt_row_sums(x, (const int8_t *)c->w + (j >> 1) * c->w_stride, c->w_stride, acc, end);
  for (int32_t i = 0; i < 4; i++) {
    int8_t *to = y + ((j + i) >> 1) * c->two_cols + (i & 1) * tvmt_pairs_second(finish);
    tvmt_pairs_finish(to, acc[i], 0, j + i, c, finish);
  }
}

#endif

/* As tvmt_pairs_rows, for one row; finish: S8, TABLE_S8 or S32. */
TVMT_SHARED TVMT_CODE_SECTION void tvmt_row_pairs(const uint32_t *x, void *out,
                                                                              const tvmt_pairs *c, int finish) {
  const uint32_t *end = x + 2 * ((c->depth + 3) >> 2);
  int8_t *y = (int8_t *)out;
  int32_t j = 0;
#if TVMT_DSP
  if (finish == TVMT_PAIRS_S8 && c->two_cols == 2 && c->cols > 3) {
    j = c->cols & ~3;
    tvmt_row_fours_s8(x, c->w, c->w_stride, j >> 2, c->bias, c->multiplier, y, x + ((end - x) & 7), end, c->zero_point,
                      c->shift);
  }
  for (; j + 3 < c->cols; j += 4) {
    tvmt_row_four(x, end, y, j, c, finish);
  }
#endif
  for (; j < c->cols; j += 2) {
    tvmt_pairs_one(x, end, y, 1, j, c, finish, TVMT_WIDE_WEIGHTS);
  }
}

#endif
