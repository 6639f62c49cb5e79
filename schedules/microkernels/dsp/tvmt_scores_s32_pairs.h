/* Attention scores of one head: queries times pairs of keys, both symmetric int8, unscaled. */
#ifndef TVMT_SCORES_S32_PAIRS_H
#define TVMT_SCORES_S32_PAIRS_H

#include "tvmt_pairs.h"

/* out[i * out_stride + j] = sum_k q[i * q_stride + k] * k[(j >> 1) * k_stride + 2 * k + (j & 1)].
 *
 * q: rows of `depth` int8. k: ceil(cols / 2) pairs of keys, with room for a multiple of four elements each, aligned to
 * 4 bytes, from tvmt_dense_s8_keys. workspace: R * ceil(depth / 4) * 4 int16, where R is rows if that is 1 or 2, else
 * 4, aligned to 4 bytes. Strides in elements. out must not overlap q or k.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_scores_s32_pairs(const int8_t *q, const int8_t *k, int32_t *out,
                                                           int16_t *workspace, int32_t rows, int32_t cols,
                                                           int32_t depth, int32_t q_stride, int32_t k_stride,
                                                           int32_t out_stride) {
  const tvmt_pairs columns = {k, k_stride, depth, cols, NULL, NULL, NULL, 4 * out_stride, 8 * out_stride, 8, 0, 0};
  uint32_t *strip = (uint32_t *)(void *)workspace;
  while (rows > 0) {
    const int32_t taken = tvmt_pairs_strip(strip, (const uint8_t *)q, out, rows, q_stride, &columns, TVMT_PAIRS_RAW, 1);
    q += taken * q_stride;
    out += taken * out_stride;
    rows -= taken;
  }
}

#endif
