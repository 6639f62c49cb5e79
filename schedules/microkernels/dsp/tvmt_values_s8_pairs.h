/* Attention values of one head: unnormalised uint8 probabilities times pairs of channels, divided by the row's sum. */
#ifndef TVMT_VALUES_S8_PAIRS_H
#define TVMT_VALUES_S8_PAIRS_H

#include "tvmt_pairs.h"

/* out[i * out_stride + j] = clamp8(multiply_high(acc << shift, ratio / row_sum[i]) + zero_point),
 * acc = sum_k p[i * p_stride + k] * v[(j >> 1) * v_stride + 2 * k + (j & 1)].
 *
 * p: rows of `depth` uint8. v: ceil(cols / 2) pairs of channels, with room for a multiple of four elements each,
 * aligned to 4 bytes, from tvmt_dense_s8_channels. row_sum: [rows], at least 255 each, from tvmt_softmax_u8. ratio:
 * scale_v / scale_out * 2**(32 - shift). acc << shift must fit 32 bits. workspace: R * ceil(depth / 4) * 4 int16,
 * where R is rows if that is 1 or 2, else 4, aligned to 4 bytes. Strides in elements. out must not overlap p or v.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_values_s8_pairs(const uint8_t *p, const int8_t *v, const int32_t *row_sum,
                                                          int8_t *out, int16_t *workspace, int32_t rows, int32_t cols,
                                                          int32_t depth, int32_t p_stride, int32_t v_stride,
                                                          int32_t out_stride, uint32_t ratio, int32_t shift,
                                                          int32_t zero_point) {
  int32_t multiplier[TVMT_PAIR_ROWS] = {0};
  const tvmt_pairs columns = {v,          v_stride,       depth, cols,  NULL,      multiplier, NULL,
                              out_stride, 2 * out_stride, 2,     shift, zero_point};
  uint32_t *strip = (uint32_t *)(void *)workspace;
  while (rows > 0) {
    for (int32_t i = 0; i < rows && i < TVMT_PAIR_ROWS; i++) {
      multiplier[i] = (int32_t)(ratio / (uint32_t)row_sum[i]);
    }
    if (rows == 3) { /* widened as four */
      multiplier[3] = multiplier[2];
      multiplier[2] = multiplier[1];
    }
    const int32_t taken = tvmt_pairs_strip(strip, p, out, rows, p_stride, &columns, TVMT_PAIRS_ROW_S8, 0);
    p += taken * p_stride;
    row_sum += taken;
    out += taken * out_stride;
    rows -= taken;
  }
}

#endif
