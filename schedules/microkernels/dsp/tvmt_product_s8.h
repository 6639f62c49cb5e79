/* Products of two matrices that are both activations, symmetric int8. */
#ifndef TVMT_PRODUCT_S8_H
#define TVMT_PRODUCT_S8_H

#include "tvmt_strip.h"

/* out[i * out_stride + j] = clamp8(multiply_high(acc << shift, multiplier) + zero_point),
 * acc = sum_k a[i * a_stride + k] * b[j * b_stride + k].
 *
 * a: rows of `depth` int8; b: cols >= 1 of `depth` int8. acc << shift must fit 32 bits. workspace: min(rows, 6) *
 * ceil(depth / 4) * 4 int16, aligned to 4 bytes. Strides in elements. out must not overlap a or b.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_product_s8(const int8_t *a, const int8_t *b, int8_t *out, int16_t *workspace,
                                                     int32_t rows, int32_t cols, int32_t depth, int32_t a_stride,
                                                     int32_t b_stride, int32_t out_stride, int32_t multiplier,
                                                     int32_t shift, int32_t zero_point) {
  const int32_t multipliers[TVMT_STRIP_ROWS] = {multiplier, multiplier, multiplier,
                                                multiplier, multiplier, multiplier};
  const tvmt_columns columns = {b, b_stride, depth, cols, NULL, multipliers, out_stride, 1, shift, zero_point};
  uint32_t *strip = (uint32_t *)(void *)workspace;
  while (rows > 0) {
    const int32_t taken = tvmt_strip_rows(rows);
    tvmt_widen_s8(strip, a, taken, a_stride, depth);
    tvmt_strip(strip, out, taken, &columns, TVMT_FINISH_ROW_S8);
    a += taken * a_stride;
    out += taken * out_stride;
    rows -= taken;
  }
}

#endif
