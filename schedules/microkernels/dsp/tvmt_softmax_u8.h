/* Softmax of attention scores to unnormalised uint8 exponentials and the sum of each row. */
#ifndef TVMT_SOFTMAX_U8_H
#define TVMT_SOFTMAX_U8_H

#include "tvmt_arith.h"
#include "tvmt_assembly.h"

#if TVMT_DSP

/* r4 to r7: four scores; r8: the largest. A branch that is rarely taken costs one instruction where a conditional move
 * costs two. The labels A to D and their returns are a group's own. */
#define TVMT_MAX_FOUR(A, B, C, D)                    \
  "ldm r0!, {r4-r7}\n\t"                             \
  "cmp r4, r8\n\t"                                   \
  "bgt.w " A "1f\n" A "2:\n\t"                       \
  "cmp r5, r8\n\t"                                   \
  "bgt.w " B "1f\n" B "2:\n\t"                       \
  "cmp r6, r8\n\t"                                   \
  "bgt.w " C "1f\n" C "2:\n\t"                       \
  "cmp r7, r8\n\t"                                   \
  "bgt.w " D "1f\n" D "2:\n\t"
#define TVMT_MAX_TAKE(LABEL, SCORE)                  \
  LABEL "1:\n\t"                                     \
  "mov r8, " SCORE "\n\t"                            \
  "b.w " LABEL "2b\n"
/* r1: table; r2: p; r9: multiplier; r10: sum; r11: 0. */
#define TVMT_EXP_FOUR                                \
  "ldm r0!, {r4-r7}\n\t"                             \
  "sub r4, r8, r4\n\t"                               \
  "sub r5, r8, r5\n\t"                               \
  "sub r6, r8, r6\n\t"                               \
  "sub r7, r8, r7\n\t"                               \
  "smmulr r4, r4, r9\n\t"                            \
  "smmulr r5, r5, r9\n\t"                            \
  "smmulr r6, r6, r9\n\t"                            \
  "smmulr r7, r7, r9\n\t"                            \
  "usat r4, #8, r4\n\t"                              \
  "usat r5, #8, r5\n\t"                              \
  "usat r6, #8, r6\n\t"                              \
  "usat r7, #8, r7\n\t"                              \
  "ldrb r4, [r1, r4]\n\t"                            \
  "ldrb r5, [r1, r5]\n\t"                            \
  "ldrb r6, [r1, r6]\n\t"                            \
  "ldrb r7, [r1, r7]\n\t"                            \
  "orr r4, r4, r5, lsl #8\n\t"                       \
  "orr r6, r6, r7, lsl #8\n\t"                       \
  "orr r4, r4, r6, lsl #16\n\t"                      \
  "str r4, [r2], #4\n\t"                             \
  "usada8 r10, r4, r11, r10\n\t"

/* p = table[min(255, multiply_high(max - score, multiplier))] of the scores up to end, a multiple of four and at least
 * four; max is the largest of them and of `largest`. Returns the sum of p, and max in the upper half. Each loop handles
 * eight scores and is entered in its middle when four are left over.
 */
TVMT_ASSEMBLY TVMT_CODE_SECTION uint64_t tvmt_softmax_fours(const int32_t *score, const uint8_t *table,
                                                                          uint8_t *p, const int32_t *end,
                                                                          int32_t multiplier, int32_t largest) {
  TVMT_IN_ASSEMBLY((void)score, (void)table, (void)p, (void)end, (void)multiplier, (void)largest)
  __asm__(
      "push {r4-r11, lr}\n\t"
      "ldrd r9, r8, [sp, #36]\n\t"
      "mov r12, r0\n\t"
      "movs r4, #0\n\t"
      "mov r10, r4\n\t"
      "mov r11, r4\n\t"
      "sub lr, r3, r0\n\t"
      "tst lr, #16\n\t"
      "bne 2f\n"
      "1:\n\t" TVMT_MAX_FOUR("1", "2", "3", "4")
      "2:\n\t" TVMT_MAX_FOUR("5", "6", "7", "8")
      "cmp r0, r3\n\t"
      "bne 1b\n\t"
      "mov r0, r12\n\t"
      "tst lr, #16\n\t"
      "bne 4f\n"
      "3:\n\t" TVMT_EXP_FOUR
      "4:\n\t" TVMT_EXP_FOUR
      "cmp r0, r3\n\t"
      "bne 3b\n\t"
      "mov r0, r10\n\t"
      "mov r1, r8\n\t"
      "pop {r4-r11, pc}\n"
      TVMT_MAX_TAKE("1", "r4") TVMT_MAX_TAKE("2", "r5") TVMT_MAX_TAKE("3", "r6") TVMT_MAX_TAKE("4", "r7")
      TVMT_MAX_TAKE("5", "r4") TVMT_MAX_TAKE("6", "r5") TVMT_MAX_TAKE("7", "r6") TVMT_MAX_TAKE("8", "r7"));
}

#endif

/* p[i * p_stride + j] = table[min(255, multiply_high((max - score) << shift, multiplier))]; row_sum[i] = sum_j p.
 *
 * scores: rows of `cols` >= 1 int32, (max - score) << shift must fit 31 bits. multiplier: not negative. table: 256
 * uint8, table[0] = 255. Strides in elements. p must not overlap scores, with one exception: p may be the scores' own
 * memory when p_stride is at most 4 * scores_stride. Element j then overwrites bytes that only scores up to j / 4 of
 * its row and earlier rows use, which have been read: keep the order of elements.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_softmax_u8(const int32_t *scores, const uint8_t *table, uint8_t *p,
                                                     int32_t *row_sum, int32_t rows, int32_t cols,
                                                     int32_t scores_stride, int32_t p_stride, int32_t multiplier,
                                                     int32_t shift) {
  for (int32_t i = 0; i < rows; i++) {
    const int32_t *score = scores + i * scores_stride;
    uint8_t *y = p + i * p_stride;
    int32_t largest = score[0], sum = 0, j = 0;
#if TVMT_DSP
    /* The general loop shifts; a shift of 0 is the common one. */
    const int32_t fours = shift == 0 ? cols & ~3 : 0;
#else
    const int32_t fours = 0;
#endif
    for (int32_t k = fours; k < cols; k++) {
      largest = score[k] > largest ? score[k] : largest;
    }
#if TVMT_DSP
    if (fours > 0) {
      const uint64_t result = tvmt_softmax_fours(score, table, y, score + fours, multiplier, largest);
      sum = (int32_t)(uint32_t)result;
      largest = (int32_t)(uint32_t)(result >> 32);
      j = fours;
    }
#endif
    for (; j < cols; j++) {
      const int32_t distance = tvmt_shift_left(largest - score[j], shift);
      const uint8_t value = table[tvmt_saturate_u8(tvmt_multiply_high(distance, multiplier))];
      y[j] = value;
      sum += value;
    }
    row_sum[i] = sum;
  }
}

#endif
