/* int8 dense layer whose result stays int32, in the finer scale of a sum (residual and LayerNorm follow). */
#ifndef TVMT_DENSE_S32_H
#define TVMT_DENSE_S32_H

#include "tvmt_dot_s8.h"

/* out[i * out_stride + j] = multiply_high(acc << shift, multiplier[j]),
 * acc = bias[j] + sum_k x[i * x_stride + k] * weight[j * depth + k].
 *
 * x: rows of `depth` int8. weight: [cols][depth]. bias, multiplier: [cols]. acc << shift must fit 32 bits.
 * workspace: not used. Strides in elements. out must not overlap x.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_dense_s32(const int8_t *x, const int8_t *weight, const int32_t *bias,
                                                    const int32_t *multiplier, int32_t *out, int16_t *workspace,
                                                    int32_t rows, int32_t cols, int32_t depth, int32_t x_stride,
                                                    int32_t out_stride, int32_t shift) {
  tvmt_tile tile;
  (void)workspace;
  for (int32_t j = 0; j < cols; j += 2) {
    /* An odd last column is computed twice and written once, twice. */
    const int32_t next = j + 1 < cols ? 1 : 0;
    const int8_t *w0 = weight + j * depth;
    const int32_t multiplier0 = multiplier[j], multiplier1 = multiplier[j + next];
    const uint8_t *a = (const uint8_t *)x;
    int32_t *y = out + j;
    int32_t i = rows;
    tvmt_tile_columns(&tile, w0, w0 + next * depth, depth, bias[j], bias[j + next], x_stride);
    for (; i > 1; i -= 2) {
      tvmt_dot_2x2(&tile, a, TVMT_ROWS_S8);
      y[0] = tvmt_multiply_high(tvmt_shift_left(tile.a0, shift), multiplier0);
      y[next] = tvmt_multiply_high(tvmt_shift_left(tile.a1, shift), multiplier1);
      y[out_stride] = tvmt_multiply_high(tvmt_shift_left(tile.b0, shift), multiplier0);
      y[out_stride + next] = tvmt_multiply_high(tvmt_shift_left(tile.b1, shift), multiplier1);
      a += 2 * x_stride;
      y += 2 * out_stride;
    }
    if (i > 0) {
      tvmt_dot_1x2(&tile, a, TVMT_ROWS_S8);
      y[0] = tvmt_multiply_high(tvmt_shift_left(tile.a0, shift), multiplier0);
      y[next] = tvmt_multiply_high(tvmt_shift_left(tile.a1, shift), multiplier1);
    }
  }
}

#endif
