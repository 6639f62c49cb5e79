/* Dot products of int8 (or uint8) rows with int8 columns, in tiles: the inner loop of every matrix product.
 *
 * Sums are modulo 2**32, so only the final value has to fit an int32_t. No alignment is needed.
 */
#ifndef TVMT_DOT_S8_H
#define TVMT_DOT_S8_H

#include "tvmt_arith.h"

/* Accumulators of rows a, b and columns 0, 1. */
typedef struct {
  int32_t a0, a1, b0, b1;
} tvmt_tile;

/* How the bytes of a row are read. */
enum { TVMT_ROWS_S8 = 0, TVMT_ROWS_U8 = 1 };

TVMT_INLINE int32_t tvmt_row_byte(const uint8_t *x, int rows_type) {
  return rows_type == TVMT_ROWS_U8 ? (int32_t)*x : (int32_t)(int8_t)*x;
}

/* tile += rows a, b times columns w0, w1, `depth` elements each. */
TVMT_INLINE void tvmt_dot_2x2(tvmt_tile *tile, const uint8_t *a, const uint8_t *b, const int8_t *w0, const int8_t *w1,
                              int32_t depth, int rows_type) {
  tvmt_tile sum = *tile;
  for (int32_t k = 0; k < depth; k++) {
    const int32_t xa = tvmt_row_byte(a + k, rows_type), xb = tvmt_row_byte(b + k, rows_type);
    const int32_t y0 = w0[k], y1 = w1[k];
    sum.a0 = tvmt_add(sum.a0, xa * y0);
    sum.a1 = tvmt_add(sum.a1, xa * y1);
    sum.b0 = tvmt_add(sum.b0, xb * y0);
    sum.b1 = tvmt_add(sum.b1, xb * y1);
  }
  *tile = sum;
}

/* Row a alone: adds to tile->a0 and tile->a1. */
TVMT_INLINE void tvmt_dot_1x2(tvmt_tile *tile, const uint8_t *a, const int8_t *w0, const int8_t *w1, int32_t depth,
                              int rows_type) {
  int32_t a0 = tile->a0, a1 = tile->a1;
  for (int32_t k = 0; k < depth; k++) {
    const int32_t xa = tvmt_row_byte(a + k, rows_type);
    a0 = tvmt_add(a0, xa * w0[k]);
    a1 = tvmt_add(a1, xa * w1[k]);
  }
  tile->a0 = a0;
  tile->a1 = a1;
}

#endif
