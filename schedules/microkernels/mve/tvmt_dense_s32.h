/* int8 dense layer whose result stays int32, in the finer scale of a sum (residual and LayerNorm follow). */
#ifndef TVMT_DENSE_S32_H
#define TVMT_DENSE_S32_H

#include "tvmt_finish.h"

/* out[i * out_stride + j] = multiply_high(acc << shift, multiplier[j]),
 * acc = bias[j] + sum_k x[i * x_stride + k] * weight[j * depth + k].
 *
 * x: rows of `depth` int8. weight: [cols][depth], cols >= 1. bias, multiplier: [cols]. acc << shift must fit 32 bits.
 * workspace: min(rows, 2) * ceil(depth / 4) * 4 int16. Strides in elements. out must not overlap x.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_dense_s32(const int8_t *x, const int8_t *weight, const int32_t *bias,
                                                    const int32_t *multiplier, int32_t *out, int16_t *workspace,
                                                    int32_t rows, int32_t cols, int32_t depth, int32_t x_stride,
                                                    int32_t out_stride, int32_t shift) {
  int32_t few[2][TVMT_TILE_COLUMNS];
  for (int32_t i = 0, taken; i < rows; i += taken) {
    taken = tvmt_rows_taken(rows - i, depth);
    const void *prepared = tvmt_prepare_rows(workspace, x + i * x_stride, taken, depth, x_stride);
    tvmt_chunk chunk;
    for (int32_t done = 0; done < cols; done = chunk.first + chunk.count) {
      chunk = tvmt_next_chunk(done, cols, depth, cols & ~3);
      /* The sums lie where the results go, unless those are fewer than a tile. */
      int32_t *y = out + i * out_stride + chunk.first, *acc = y, *other = y + out_stride;
      if (chunk.count < TVMT_TILE_COLUMNS) {
        acc = few[0];
        other = few[1];
      }
      tvmt_multiply(acc, other, prepared, taken, weight, depth, chunk, depth, TVMT_ROWS_S8);
      for (int32_t r = 0; r < taken; r++) {
        tvmt_finish_columns_s32(r == 0 ? acc : other, bias + chunk.first, multiplier + chunk.first,
                                y + r * out_stride, chunk.count, shift);
      }
    }
  }
}

#endif
