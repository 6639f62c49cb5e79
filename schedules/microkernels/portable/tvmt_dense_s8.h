/* int8 dense layer: out = requantize(bias + x * weight^T). */
#ifndef TVMT_DENSE_S8_H
#define TVMT_DENSE_S8_H

#include "tvmt_dot_s8.h"

/* out[i * out_row_stride + j * out_col_stride] = clamp8(multiply_high(acc << shift, multiplier[j]) + zero_point),
 * acc = bias[j] + sum_k x[i * x_stride + k] * weight[j * depth + k].
 *
 * x: rows of `depth` int8. weight: [cols][depth]. bias, multiplier: [cols]. acc << shift must fit 32 bits.
 * workspace: not used. Strides in elements. out must not overlap x.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_dense_s8(const int8_t *x, const int8_t *weight, const int32_t *bias,
                                                   const int32_t *multiplier, int8_t *out, int16_t *workspace,
                                                   int32_t rows, int32_t cols, int32_t depth, int32_t x_stride,
                                                   int32_t out_row_stride, int32_t out_col_stride, int32_t shift,
                                                   int32_t zero_point) {
  tvmt_tile tile;
  (void)workspace;
  for (int32_t j = 0; j < cols; j += 2) {
    /* An odd last column is computed twice and written once, twice. */
    const int32_t next = j + 1 < cols ? 1 : 0;
    const int8_t *w0 = weight + j * depth;
    const int32_t multiplier0 = multiplier[j], multiplier1 = multiplier[j + next];
    const uint8_t *a = (const uint8_t *)x;
    int8_t *y0 = out + j * out_col_stride, *y1 = y0 + next * out_col_stride;
    int32_t i = rows;
    tvmt_tile_columns(&tile, w0, w0 + next * depth, depth, bias[j], bias[j + next], x_stride);
    for (; i > 1; i -= 2) {
      tvmt_dot_2x2(&tile, a, TVMT_ROWS_S8);
      y0[0] = tvmt_requantize_s8(tile.a0, multiplier0, shift, zero_point);
      y1[0] = tvmt_requantize_s8(tile.a1, multiplier1, shift, zero_point);
      y0[out_row_stride] = tvmt_requantize_s8(tile.b0, multiplier0, shift, zero_point);
      y1[out_row_stride] = tvmt_requantize_s8(tile.b1, multiplier1, shift, zero_point);
      a += 2 * x_stride;
      y0 += 2 * out_row_stride;
      y1 += 2 * out_row_stride;
    }
    if (i > 0) {
      tvmt_dot_1x2(&tile, a, TVMT_ROWS_S8);
      y0[0] = tvmt_requantize_s8(tile.a0, multiplier0, shift, zero_point);
      y1[0] = tvmt_requantize_s8(tile.a1, multiplier1, shift, zero_point);
    }
  }
}

#endif
