/* int8 dense layer with int4 weights: out = requantize(bias + x * weight^T). */
#ifndef TVMT_DENSE_W4_S8_H
#define TVMT_DENSE_W4_S8_H

#include "tvmt_w4.h"

/* out[i * out_row_stride + j * out_col_stride] = clamp8(multiply_high(acc << shift, multiplier[j]) + zero_point),
 * acc = bias[j] + sum_k x[i * x_stride + k] * w[j][k], w[j][k] = groups[j][k / 32] * q[j][k].
 *
 * x: rows of `depth` int8. weight: q packed, [cols][tvmt_w4_bytes(depth)]. groups: [cols][tvmt_w4_groups(depth)].
 * bias, multiplier: [cols]. acc << shift must fit 32 bits. workspace: as tvmt_w4_take needs it. Strides in elements.
 * out must not overlap x.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_dense_w4_s8(const int8_t *x, const uint8_t *weight, const uint8_t *groups,
                                                      const int32_t *bias, const int32_t *multiplier, int8_t *out,
                                                      int16_t *workspace, int32_t rows, int32_t cols, int32_t depth,
                                                      int32_t x_stride, int32_t out_row_stride, int32_t out_col_stride,
                                                      int32_t shift, int32_t zero_point) {
  const int32_t column_bytes = tvmt_w4_bytes(depth), column_groups = tvmt_w4_groups(depth);
  while (rows > 0) {
    const int32_t count = rows < TVMT_W4_ROWS ? rows : TVMT_W4_ROWS;
    const int32_t row1 = tvmt_w4_row(1, count) * out_row_stride, row2 = tvmt_w4_row(2, count) * out_row_stride;
    const int32_t row3 = tvmt_w4_row(3, count) * out_row_stride;
    const uint8_t *w = weight, *scales = groups;
    tvmt_w4_strip strip;
    tvmt_w4_take(&strip, x, x_stride, count, depth, workspace);
    for (int32_t j = 0; j < cols; j++) {
      const int32_t start = bias[j], factor = multiplier[j];
      int32_t acc[TVMT_W4_ROWS] = {start, start, start, start};
      int8_t *y = out + j * out_col_stride;
      tvmt_w4_add_products(&strip, w, scales, acc);
      y[0] = tvmt_requantize_s8(acc[0], factor, shift, zero_point);
      if (count > 1) {
        y[row1] = tvmt_requantize_s8(acc[1], factor, shift, zero_point);
        y[row2] = tvmt_requantize_s8(acc[2], factor, shift, zero_point);
        y[row3] = tvmt_requantize_s8(acc[3], factor, shift, zero_point);
      }
      w += column_bytes;
      scales += column_groups;
    }
    x += count * x_stride;
    out += count * out_row_stride;
    rows -= count;
  }
}

#endif
