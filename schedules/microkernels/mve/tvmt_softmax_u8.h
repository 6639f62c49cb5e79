/* Softmax of attention scores to unnormalised uint8 exponentials and the sum of each row. */
#ifndef TVMT_SOFTMAX_U8_H
#define TVMT_SOFTMAX_U8_H

#include "tvmt_vectors.h"

/* p[i * p_stride + j] = table[min(255, multiply_high((max - score) << shift, multiplier))]; row_sum[i] = sum_j p.
 *
 * scores: rows of `cols` >= 1 int32, (max - score) << shift must fit 31 bits. multiplier: not negative. table: 256
 * uint8, table[0] = 255. Strides in elements. p must not overlap scores, with one exception: p may be the scores' own
 * memory when p_stride is at most 4 * scores_stride. Elements are then written behind those that have been read: keep
 * the order.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_softmax_u8(const int32_t *scores, const uint8_t *table, uint8_t *p,
                                                     int32_t *row_sum, int32_t rows, int32_t cols,
                                                     int32_t scores_stride, int32_t p_stride, int32_t multiplier,
                                                     int32_t shift) {
  for (int32_t i = 0; i < rows; i++) {
    const int32_t *score = scores + i * scores_stride;
    uint8_t *y = p + i * p_stride;
    int32_t largest = score[0], sum = 0;
#if TVMT_MVE
    const int32_t *s = score;
    __asm__ volatile(
        "dlstp.32 lr, %[cols]\n"
        "1:\n\t"
        "vldrw.u32 q0, [%[s]], #16\n\t"
        "vmaxv.s32 %[largest], q0\n\t"
        "letp lr, 1b"
        : [s] "+&r"(s), [largest] "+&r"(largest)
        : [cols] "r"(cols)
        : "q0", "lr", "memory");
    __asm__ volatile(
        "dlstp.32 lr, %[cols]\n"
        "1:\n\t"
        "vldrw.u32 q0, [%[score]], #16\n\t"
        "vsub.i32 q0, %q[peak], q0\n\t"
        "vshl.s32 q0, %[shift]\n\t"
        "vrmulh.s32 q0, q0, %q[factor]\n\t"
        "vmin.u32 q0, q0, %q[last]\n\t"
        "vldrb.u32 q1, [%[table], q0]\n\t"
        "vaddva.u32 %[sum], q1\n\t"
        "vstrb.32 q1, [%[y]], #4\n\t"
        "letp lr, 1b"
        : [score] "+&r"(score), [y] "+&l"(y), [sum] "+&Te"(sum)
        : [cols] "r"(cols), [table] "r"(table), [shift] "r"(shift), [peak] "w"(vdupq_n_s32(largest)),
          [factor] "w"(vdupq_n_s32(multiplier)), [last] "w"(vdupq_n_s32(UINT8_MAX))
        : "q0", "q1", "lr", "memory");
#else
    for (int32_t j = 1; j < cols; j++) {
      largest = score[j] > largest ? score[j] : largest;
    }
    for (int32_t j = 0; j < cols; j++) {
      const int32_t distance = tvmt_shift_left(largest - score[j], shift);
      const uint8_t value = table[tvmt_saturate_u8(tvmt_multiply_high(distance, multiplier))];
      y[j] = value;
      sum += value;
    }
#endif
    row_sum[i] = sum;
  }
}

#endif
