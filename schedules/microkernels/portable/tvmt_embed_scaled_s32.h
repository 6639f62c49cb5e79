/* Token embeddings from a table with a scale a row, such as one that is the last layer's weights, too. */
#ifndef TVMT_EMBED_SCALED_S32_H
#define TVMT_EMBED_SCALED_S32_H

#include "tvmt_arith.h"

/* out[i * out_stride + j] = table[ids[i] * cols + j] * factors[ids[i]].
 *
 * ids: [rows], each below the number of rows of table and factors (the caller has checked). out_stride in elements.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_embed_scaled_s32(const uint16_t *ids, const int8_t *table,
                                                           const uint16_t *factors, int32_t *out, int32_t rows,
                                                           int32_t cols, int32_t out_stride) {
  for (int32_t i = 0; i < rows; i++) {
    const int8_t *row = table + (int32_t)ids[i] * cols;
    const int32_t factor = factors[ids[i]];
    int32_t *y = out + i * out_stride;
    for (int32_t j = 0; j < cols; j++) {
      y[j] = row[j] * factor;
    }
  }
}

#endif
