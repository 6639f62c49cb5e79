/* Attention values of one head: unnormalised uint8 probabilities times int8 values, divided by the row's sum. */
#ifndef TVMT_VALUES_S8_H
#define TVMT_VALUES_S8_H

#include "tvmt_dot_s8.h"

/* out[i * out_stride + j] = clamp8(multiply_high(acc << shift, ratio / row_sum[i]) + zero_point),
 * acc = sum_k p[i * p_stride + k] * v_transposed[j * v_stride + k].
 *
 * p: rows of `depth` uint8. v_transposed: cols of `depth` valid int8. row_sum: [rows], at least 255 each, from
 * tvmt_softmax_u8. ratio: scale_v / scale_out * 2**(32 - shift). acc << shift must fit 32 bits. workspace: not used.
 * Strides in elements. out must not overlap p or v_transposed.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_values_s8(const uint8_t *p, const int8_t *v_transposed,
                                                    const int32_t *row_sum, int8_t *out, int16_t *workspace,
                                                    int32_t rows, int32_t cols, int32_t depth, int32_t p_stride,
                                                    int32_t v_stride, int32_t out_stride, uint32_t ratio,
                                                    int32_t shift, int32_t zero_point) {
  tvmt_tile tile;
  (void)workspace;
  for (int32_t i = 0; i < rows; i += 2) {
    /* An odd last row is alone. */
    const int32_t next = i + 1 < rows ? 1 : 0;
    const uint8_t *a = p + i * p_stride;
    const int32_t multiplier_a = (int32_t)(ratio / (uint32_t)row_sum[i]);
    const int32_t multiplier_b = (int32_t)(ratio / (uint32_t)row_sum[i + next]);
    const int8_t *w0 = v_transposed;
    int8_t *y = out + i * out_stride;
    for (int32_t j = cols; j > 0; j -= 2) {
      const int32_t next_col = j > 1 ? 1 : 0;
      tvmt_tile_columns(&tile, w0, w0 + next_col * v_stride, depth, 0, 0, p_stride);
      if (next != 0) {
        tvmt_dot_2x2(&tile, a, TVMT_ROWS_U8);
        y[out_stride] = tvmt_requantize_s8(tile.b0, multiplier_b, shift, zero_point);
        y[out_stride + next_col] = tvmt_requantize_s8(tile.b1, multiplier_b, shift, zero_point);
      } else {
        tvmt_dot_1x2(&tile, a, TVMT_ROWS_U8);
      }
      y[0] = tvmt_requantize_s8(tile.a0, multiplier_a, shift, zero_point);
      y[next_col] = tvmt_requantize_s8(tile.a1, multiplier_a, shift, zero_point);
      w0 += 2 * v_stride;
      y += 2;
    }
  }
}

#endif
