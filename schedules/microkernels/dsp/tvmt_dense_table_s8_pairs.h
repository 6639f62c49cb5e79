/* int8 dense layer and a function of its results by table, such as GELU. */
#ifndef TVMT_DENSE_TABLE_S8_PAIRS_H
#define TVMT_DENSE_TABLE_S8_PAIRS_H

#include "tvmt_dense_pairs.h"

/* out[i * out_stride + j] = table[clamp8(multiply_high(acc << shift, multiplier[j]) + zero_point) + 128],
 * acc = bias[j] + sum_k x[i * x_stride + k] * (element k of column j of weight).
 *
 * x: rows of `depth` int8. weight: ceil(cols / 2) pairs of columns as tvmt_weights.h has them, filled up to a multiple
 * of four elements each, w_stride apart, aligned to 4 bytes. bias, multiplier: [cols]. table: [256]. acc << shift must
 * fit 32 bits. workspace: R * ceil(depth / 4) * 4 int16, where R is rows if that is 1 or 2, else 4, aligned to 4
 * bytes. Strides in elements. out must not overlap x.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_dense_table_s8_pairs(const int8_t *x, const tvmt_weight *weight,
                                                               const int32_t *bias, const int32_t *multiplier,
                                                               const int8_t *table, int8_t *out, int16_t *workspace,
                                                               int32_t rows, int32_t cols, int32_t depth,
                                                               int32_t x_stride, int32_t w_stride, int32_t out_stride,
                                                               int32_t shift, int32_t zero_point) {
  const int32_t bytes = w_stride * (int32_t)sizeof(tvmt_weight);
  const tvmt_pairs columns = {weight, bytes, depth, cols, bias, multiplier, table,
                              out_stride, 2 * out_stride, 2, shift, zero_point};
  tvmt_dense_pairs(x, out, workspace, rows, x_stride, &columns, TVMT_PAIRS_TABLE_S8);
}

#endif
