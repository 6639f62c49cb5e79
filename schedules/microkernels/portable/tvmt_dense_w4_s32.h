/* int8 dense layer with int4 weights whose result stays int32, in the finer scale of a sum. */
#ifndef TVMT_DENSE_W4_S32_H
#define TVMT_DENSE_W4_S32_H

#include "tvmt_w4.h"

/* out[i * out_stride + j] = multiply_high(acc << shift, multiplier[j]),
 * acc = bias[j] + sum_k x[i * x_stride + k] * w[j][k], w[j][k] = groups[j][k / 32] * q[j][k].
 *
 * x: rows of `depth` int8. weight: q packed, [cols][tvmt_w4_bytes(depth)]. groups: [cols][tvmt_w4_groups(depth)].
 * bias, multiplier: [cols]. acc << shift must fit 32 bits. workspace: as tvmt_w4_take needs it. Strides in elements.
 * out must not overlap x.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_dense_w4_s32(const int8_t *x, const uint8_t *weight, const uint8_t *groups,
                                                       const int32_t *bias, const int32_t *multiplier, int32_t *out,
                                                       int16_t *workspace, int32_t rows, int32_t cols, int32_t depth,
                                                       int32_t x_stride, int32_t out_stride, int32_t shift) {
  const int32_t column_bytes = tvmt_w4_bytes(depth), column_groups = tvmt_w4_groups(depth);
  while (rows > 0) {
    const int32_t count = rows < TVMT_W4_ROWS ? rows : TVMT_W4_ROWS;
    const int32_t row1 = tvmt_w4_row(1, count) * out_stride, row2 = tvmt_w4_row(2, count) * out_stride;
    const int32_t row3 = tvmt_w4_row(3, count) * out_stride;
    const uint8_t *w = weight, *scales = groups;
    tvmt_w4_strip strip;
    tvmt_w4_take(&strip, x, x_stride, count, depth, workspace);
    for (int32_t j = 0; j < cols; j++) {
      const int32_t start = bias[j], factor = multiplier[j];
      int32_t acc[TVMT_W4_ROWS] = {start, start, start, start};
      int32_t *y = out + j;
      tvmt_w4_add_products(&strip, w, scales, acc);
      y[0] = tvmt_multiply_high(tvmt_shift_left(acc[0], shift), factor);
      if (count > 1) {
        y[row1] = tvmt_multiply_high(tvmt_shift_left(acc[1], shift), factor);
        y[row2] = tvmt_multiply_high(tvmt_shift_left(acc[2], shift), factor);
        y[row3] = tvmt_multiply_high(tvmt_shift_left(acc[3], shift), factor);
      }
      w += column_bytes;
      scales += column_groups;
    }
    x += count * x_stride;
    out += count * out_stride;
    rows -= count;
  }
}

#endif
