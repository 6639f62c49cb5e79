/* Attention scores of one head: queries times keys, both symmetric int8, unscaled. */
#ifndef TVMT_SCORES_S32_H
#define TVMT_SCORES_S32_H

#include "tvmt_products.h"

/* out[i * out_stride + j] = sum_k q[i * q_stride + k] * k[j * k_stride + k].
 *
 * q: rows of `depth` int8; k: cols >= 1 of `depth` int8. workspace: min(rows, 2) * ceil(depth / 4) * 4 int16. Strides in
 * elements. out must not overlap q or k.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_scores_s32(const int8_t *q, const int8_t *k, int32_t *out,
                                                     int16_t *workspace, int32_t rows, int32_t cols, int32_t depth,
                                                     int32_t q_stride, int32_t k_stride, int32_t out_stride) {
  int32_t few[2][TVMT_TILE_COLUMNS];
  for (int32_t i = 0, taken; i < rows; i += taken) {
    taken = tvmt_rows_taken(rows - i, depth);
    const void *prepared = tvmt_prepare_rows(workspace, q + i * q_stride, taken, depth, q_stride);
    tvmt_chunk chunk;
    for (int32_t done = 0; done < cols; done = chunk.first + chunk.count) {
      chunk = tvmt_next_chunk(done, cols, k_stride, cols & ~3);
      int32_t *y = out + i * out_stride + chunk.first;
      if (chunk.count < TVMT_TILE_COLUMNS) {
        tvmt_multiply(few[0], few[1], prepared, taken, k, depth, chunk, k_stride, TVMT_ROWS_S8);
        for (int32_t r = 0; r < taken; r++) {
          y[r * out_stride] = few[r][0];
        }
      } else {
        tvmt_multiply(y, y + out_stride, prepared, taken, k, depth, chunk, k_stride, TVMT_ROWS_S8);
      }
    }
  }
}

#endif
