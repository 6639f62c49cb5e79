/* Products of two matrices that are both activations, symmetric int8. */
#ifndef TVMT_PRODUCT_S8_H
#define TVMT_PRODUCT_S8_H

#include "tvmt_dot_s8.h"

/* out[i * out_stride + j] = clamp8(multiply_high(acc << shift, multiplier) + zero_point),
 * acc = sum_k a[i * a_stride + k] * b[j * b_stride + k].
 *
 * a: rows of `depth` int8; b: cols >= 1 of `depth` int8. acc << shift must fit 32 bits. workspace is not used. Strides
 * in elements. out must not overlap a or b.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_product_s8(const int8_t *a, const int8_t *b, int8_t *out, int16_t *workspace,
                                                     int32_t rows, int32_t cols, int32_t depth, int32_t a_stride,
                                                     int32_t b_stride, int32_t out_stride, int32_t multiplier,
                                                     int32_t shift, int32_t zero_point) {
  tvmt_tile tile;
  (void)workspace;
  for (int32_t j = 0; j < cols; j += 2) {
    /* An odd last column is computed twice and written once, twice. */
    const int32_t next = j + 1 < cols ? 1 : 0;
    const int8_t *b0 = b + j * b_stride;
    const uint8_t *row = (const uint8_t *)a;
    int8_t *y = out + j;
    int32_t i = rows;
    tvmt_tile_columns(&tile, b0, b0 + next * b_stride, depth, 0, 0, a_stride);
    for (; i > 1; i -= 2) {
      tvmt_dot_2x2(&tile, row, TVMT_ROWS_S8);
      y[0] = tvmt_requantize_s8(tile.a0, multiplier, shift, zero_point);
      y[next] = tvmt_requantize_s8(tile.a1, multiplier, shift, zero_point);
      y[out_stride] = tvmt_requantize_s8(tile.b0, multiplier, shift, zero_point);
      y[out_stride + next] = tvmt_requantize_s8(tile.b1, multiplier, shift, zero_point);
      row += 2 * a_stride;
      y += 2 * out_stride;
    }
    if (i > 0) {
      tvmt_dot_1x2(&tile, row, TVMT_ROWS_S8);
      y[0] = tvmt_requantize_s8(tile.a0, multiplier, shift, zero_point);
      y[next] = tvmt_requantize_s8(tile.a1, multiplier, shift, zero_point);
    }
  }
}

#endif
