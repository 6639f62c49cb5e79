/* int8 dense layer: out = requantize(bias + x * weight^T). */
#ifndef TVMT_DENSE_S8_H
#define TVMT_DENSE_S8_H

#include "tvmt_row.h"

/* out[i * out_row_stride + j * out_col_stride] = clamp8(multiply_high(acc << shift, multiplier[j]) + zero_point),
 * acc = bias[j] + sum_k x[i * x_stride + k] * weight[j * depth + k].
 *
 * x: rows of `depth` int8. weight: [cols][depth], cols >= 1. bias, multiplier: [cols]. acc << shift must fit 32 bits.
 * workspace: min(rows, 6) * ceil(depth / 4) * 4 int16, aligned to 4 bytes. Strides in elements. out must not overlap x.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_dense_s8(const int8_t *x, const int8_t *weight, const int32_t *bias,
                                                   const int32_t *multiplier, int8_t *out, int16_t *workspace,
                                                   int32_t rows, int32_t cols, int32_t depth, int32_t x_stride,
                                                   int32_t out_row_stride, int32_t out_col_stride, int32_t shift,
                                                   int32_t zero_point) {
  const tvmt_columns columns = {weight,         depth,          depth, cols,      bias, multiplier,
                                out_row_stride, out_col_stride, shift, zero_point};
  uint32_t *strip = (uint32_t *)(void *)workspace;
  if (rows == 1) {
    tvmt_widen_s8(strip, x, 1, x_stride, depth);
    tvmt_row(strip, out, &columns, TVMT_FINISH_S8);
    return;
  }
  while (rows > 0) {
    const int32_t taken = tvmt_strip_rows(rows);
    tvmt_widen_s8(strip, x, taken, x_stride, depth);
    tvmt_strip(strip, out, taken, &columns, TVMT_FINISH_S8);
    x += taken * x_stride;
    out += taken * out_row_stride;
    rows -= taken;
  }
}

#endif
