/* Softmax of attention scores to unnormalised uint8 exponentials and the sum of each row. */
#ifndef TVMT_SOFTMAX_U8_H
#define TVMT_SOFTMAX_U8_H

#include "tvmt_arith.h"

/* p[i * p_stride + j] = table[min(255, multiply_high((max - score) << shift, multiplier))]; row_sum[i] = sum_j p.
 *
 * scores: rows of `cols` >= 1 int32, (max - score) << shift must fit 31 bits. multiplier: not negative. table: 256
 * uint8, table[0] = 255. Strides in elements. p must not overlap scores, with one exception: p may be the scores' own
 * memory when p_stride is at most 4 * scores_stride. Element j then overwrites bytes that only scores up to j / 4 of its
 * row and earlier rows use, which have been read: keep the order of elements.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_softmax_u8(const int32_t *scores, const uint8_t *table, uint8_t *p,
                                                     int32_t *row_sum, int32_t rows, int32_t cols,
                                                     int32_t scores_stride, int32_t p_stride, int32_t multiplier,
                                                     int32_t shift) {
  for (int32_t i = 0; i < rows; i++) {
    const int32_t *score = scores + i * scores_stride;
    uint8_t *y = p + i * p_stride;
    int32_t largest = score[0], sum = 0;
    for (int32_t j = 1; j < cols; j++) {
      largest = score[j] > largest ? score[j] : largest;
    }
    for (int32_t j = 0; j < cols; j++) {
      const int32_t distance = tvmt_shift_left(largest - score[j], shift);
      const uint8_t value = table[tvmt_saturate_u8(tvmt_multiply_high(distance, multiplier))];
      y[j] = value;
      sum += value;
    }
    row_sum[i] = sum;
  }
}

#endif
