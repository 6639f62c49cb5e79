/* Attention scores of one head: queries times keys, both symmetric int8, unscaled. */
#ifndef TVMT_SCORES_S32_H
#define TVMT_SCORES_S32_H

#include "tvmt_strip.h"

/* out[i * out_stride + j] = sum_k q[i * q_stride + k] * k[j * k_stride + k].
 *
 * q: rows of `depth` int8; k: cols >= 1 of `depth` int8. workspace: min(rows, 6) * ceil(depth / 4) * 4 int16, aligned
 * to 4 bytes. Strides in elements. out must not overlap q or k.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_scores_s32(const int8_t *q, const int8_t *k, int32_t *out,
                                                     int16_t *workspace, int32_t rows, int32_t cols, int32_t depth,
                                                     int32_t q_stride, int32_t k_stride, int32_t out_stride) {
  const tvmt_columns columns = {k, k_stride, depth, cols, NULL, NULL, 4 * out_stride, 4, 0, 0};
  uint32_t *strip = (uint32_t *)(void *)workspace;
  while (rows > 0) {
    const int32_t taken = tvmt_strip_rows(rows);
    tvmt_widen_s8(strip, q, taken, q_stride, depth);
    tvmt_strip(strip, out, taken, &columns, TVMT_FINISH_RAW);
    q += taken * q_stride;
    out += taken * out_stride;
    rows -= taken;
  }
}

#endif
