/* int8 dense layer: out = requantize(bias + x * weight^T). */
#ifndef TVMT_DENSE_S8_H
#define TVMT_DENSE_S8_H

#include "tvmt_finish.h"

/* out[i * out_row_stride + j * out_col_stride] = clamp8(multiply_high(acc << shift, multiplier[j]) + zero_point),
 * acc = bias[j] + sum_k x[i * x_stride + k] * weight[j * depth + k].
 *
 * x: rows of `depth` int8. weight: [cols][depth], cols >= 1. bias, multiplier: [cols]. acc << shift must fit 32 bits.
 * workspace: min(rows, 2) * ceil(depth / 4) * 4 int16. Strides in elements. out must not overlap x.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_dense_s8(const int8_t *x, const int8_t *weight, const int32_t *bias,
                                                   const int32_t *multiplier, int8_t *out, int16_t *workspace,
                                                   int32_t rows, int32_t cols, int32_t depth, int32_t x_stride,
                                                   int32_t out_row_stride, int32_t out_col_stride, int32_t shift,
                                                   int32_t zero_point) {
  const tvmt_rounding rounding = {shift, zero_point};
  int32_t acc[2][TVMT_CHUNK_COLUMNS];
  for (int32_t i = 0, taken; i < rows; i += taken) {
    taken = tvmt_rows_taken(rows - i, depth);
    const void *prepared = tvmt_prepare_rows(workspace, x + i * x_stride, taken, depth, x_stride);
    tvmt_chunk chunk;
    for (int32_t done = 0; done < cols; done = chunk.first + chunk.count) {
      chunk = tvmt_next_chunk(done, cols, depth, TVMT_CHUNK_COLUMNS);
      tvmt_multiply(acc[0], acc[1], prepared, taken, weight, depth, chunk, depth, TVMT_ROWS_S8);
      const int32_t *own_bias = bias + chunk.first, *own_multiplier = multiplier + chunk.first;
      int8_t *y = out + i * out_row_stride + chunk.first * out_col_stride;
      if (taken == 2 && out_col_stride == 1 && shift == 0) {
        tvmt_finish_columns_2_s8(acc[0], acc[1], own_bias, own_multiplier, y, out_row_stride, chunk.count, zero_point);
        continue;
      }
      for (int32_t r = 0; r < taken; r++) {
        tvmt_finish_columns_s8(acc[r], own_bias, own_multiplier, y + r * out_row_stride, out_col_stride, chunk.count,
                               rounding);
      }
    }
  }
}

#endif
