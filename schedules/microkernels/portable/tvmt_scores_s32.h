/* Attention scores of one head: queries times keys, both symmetric int8, unscaled. */
#ifndef TVMT_SCORES_S32_H
#define TVMT_SCORES_S32_H

#include "tvmt_dot_s8.h"

/* out[i * out_stride + j] = sum_k q[i * q_stride + k] * k[j * k_stride + k].
 *
 * q: rows of `depth` int8; k: cols of `depth` int8. workspace: not used. Strides in elements. out must not
 * overlap q or k.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_scores_s32(const int8_t *q, const int8_t *k, int32_t *out,
                                                     int16_t *workspace, int32_t rows, int32_t cols, int32_t depth,
                                                     int32_t q_stride, int32_t k_stride, int32_t out_stride) {
  tvmt_tile tile;
  (void)workspace;
  for (int32_t j = 0; j < cols; j += 2) {
    /* An odd last column is computed twice and written once, twice. */
    const int32_t next = j + 1 < cols ? 1 : 0;
    const int8_t *k0 = k + j * k_stride;
    const uint8_t *a = (const uint8_t *)q;
    int32_t *y = out + j;
    int32_t i = rows;
    tvmt_tile_columns(&tile, k0, k0 + next * k_stride, depth, 0, 0, q_stride);
    for (; i > 1; i -= 2) {
      tvmt_dot_2x2(&tile, a, TVMT_ROWS_S8);
      y[0] = tile.a0;
      y[next] = tile.a1;
      y[out_stride] = tile.b0;
      y[out_stride + next] = tile.b1;
      a += 2 * q_stride;
      y += 2 * out_stride;
    }
    if (i > 0) {
      tvmt_dot_1x2(&tile, a, TVMT_ROWS_S8);
      y[0] = tile.a0;
      y[next] = tile.a1;
    }
  }
}

#endif
