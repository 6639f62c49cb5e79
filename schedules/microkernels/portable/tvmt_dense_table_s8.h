/* int8 dense layer and a function of its results by table, such as GELU. */
#ifndef TVMT_DENSE_TABLE_S8_H
#define TVMT_DENSE_TABLE_S8_H

#include "tvmt_dense_s8.h"
#include "tvmt_lookup_s8.h"

/* out[i * out_stride + j] = table[y + 128], where y is what tvmt_dense_s8 makes of the same arguments; table: [256]. */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_dense_table_s8(const int8_t *x, const int8_t *weight, const int32_t *bias,
                                                         const int32_t *multiplier, const int8_t *table, int8_t *out,
                                                         int16_t *workspace, int32_t rows, int32_t cols, int32_t depth,
                                                         int32_t x_stride, int32_t out_stride, int32_t shift,
                                                         int32_t zero_point) {
  tvmt_dense_s8(x, weight, bias, multiplier, out, workspace, rows, cols, depth, x_stride, out_stride, 1, shift,
                zero_point);
  tvmt_lookup_s8(out, table, rows, cols, out_stride);
}

#endif
