/* Products of two matrices that are both activations, symmetric int8. */
#ifndef TVMT_PRODUCT_S8_H
#define TVMT_PRODUCT_S8_H

#include "tvmt_finish.h"

/* out[i * out_stride + j] = clamp8(multiply_high(acc << shift, multiplier) + zero_point),
 * acc = sum_k a[i * a_stride + k] * b[j * b_stride + k].
 *
 * a: rows of `depth` int8; b: cols >= 1 of `depth` int8. acc << shift must fit 32 bits. workspace: min(rows, 2) *
 * ceil(depth / 4) * 4 int16. Strides in elements. out must not overlap a or b.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_product_s8(const int8_t *a, const int8_t *b, int8_t *out, int16_t *workspace,
                                                     int32_t rows, int32_t cols, int32_t depth, int32_t a_stride,
                                                     int32_t b_stride, int32_t out_stride, int32_t multiplier,
                                                     int32_t shift, int32_t zero_point) {
  const tvmt_rounding rounding = {shift, zero_point};
  int32_t acc[2][TVMT_CHUNK_COLUMNS];
  for (int32_t i = 0, taken; i < rows; i += taken) {
    taken = tvmt_rows_taken(rows - i, depth);
    const void *prepared = tvmt_prepare_rows(workspace, a + i * a_stride, taken, depth, a_stride);
    tvmt_chunk chunk;
    for (int32_t done = 0; done < cols; done = chunk.first + chunk.count) {
      chunk = tvmt_next_chunk(done, cols, b_stride, TVMT_CHUNK_COLUMNS);
      tvmt_multiply(acc[0], acc[1], prepared, taken, b, depth, chunk, b_stride, TVMT_ROWS_S8);
      for (int32_t r = 0; r < taken; r++) {
        tvmt_finish_row_s8(acc[r], 0, multiplier, out + (i + r) * out_stride + chunk.first, chunk.count, rounding);
      }
    }
  }
}

#endif
