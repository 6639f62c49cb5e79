/* Dot products of int8 (or uint8) rows with int8 columns, in tiles: the inner loop of every matrix product.
 *
 * Sums are modulo 2**32, so only the final value has to fit an int32_t. No alignment is needed.
 */
#ifndef TVMT_DOT_S8_H
#define TVMT_DOT_S8_H

#include "tvmt_arith.h"

/* Two columns of `depth` elements and their accumulators with rows a and b. */
typedef struct {
  const int8_t *w0, *w1;
  int32_t depth;
  int32_t row_stride; /* elements from row a to row b */
  int32_t start0, start1;
  int32_t a0, a1, b0, b1;
} tvmt_tile;

/* How the bytes of a row are read. */
enum { TVMT_ROWS_S8 = 0, TVMT_ROWS_U8 = 1 };

/* Chooses columns of `depth` elements, and what their accumulators start from, and the distance of the rows. */
TVMT_INLINE void tvmt_tile_columns(tvmt_tile *tile, const int8_t *w0, const int8_t *w1, int32_t depth, int32_t start0,
                                   int32_t start1, int32_t row_stride) {
  tile->row_stride = row_stride;
  tile->w0 = w0;
  tile->w1 = w1;
  tile->depth = depth;
  tile->start0 = start0;
  tile->start1 = start1;
}

TVMT_INLINE int32_t tvmt_row_byte(const uint8_t *x, int rows_type) {
  return rows_type == TVMT_ROWS_U8 ? (int32_t)*x : (int32_t)(int8_t)*x;
}

#define TVMT_DOT_FUNCTION TVMT_LOOP TVMT_CODE_SECTION void

TVMT_INLINE void tvmt_rows_2x2(tvmt_tile *tile, const uint8_t *a, int rows_type) {
  const uint8_t *b = a + tile->row_stride;
  const int8_t *w0 = tile->w0, *w1 = tile->w1, *end = w0 + tile->depth;
  int32_t a0 = tile->start0, a1 = tile->start1, b0 = a0, b1 = a1;
  while (w0 != end) {
    const int32_t xa = tvmt_row_byte(a++, rows_type), xb = tvmt_row_byte(b++, rows_type);
    const int32_t y0 = *w0++, y1 = *w1++;
    a0 = tvmt_add(a0, xa * y0);
    a1 = tvmt_add(a1, xa * y1);
    b0 = tvmt_add(b0, xb * y0);
    b1 = tvmt_add(b1, xb * y1);
  }
  tile->a0 = a0;
  tile->a1 = a1;
  tile->b0 = b0;
  tile->b1 = b1;
}

TVMT_INLINE void tvmt_rows_1x2(tvmt_tile *tile, const uint8_t *a, int rows_type) {
  const int8_t *w0 = tile->w0, *w1 = tile->w1, *end = w0 + tile->depth;
  int32_t a0 = tile->start0, a1 = tile->start1;
  while (w0 != end) {
    const int32_t xa = tvmt_row_byte(a++, rows_type);
    a0 = tvmt_add(a0, xa * *w0++);
    a1 = tvmt_add(a1, xa * *w1++);
  }
  tile->a0 = a0;
  tile->a1 = a1;
}

TVMT_DOT_FUNCTION tvmt_rows_2x2_s8(tvmt_tile *tile, const uint8_t *a) { tvmt_rows_2x2(tile, a, TVMT_ROWS_S8); }

TVMT_DOT_FUNCTION tvmt_rows_2x2_u8(tvmt_tile *tile, const uint8_t *a) { tvmt_rows_2x2(tile, a, TVMT_ROWS_U8); }

TVMT_DOT_FUNCTION tvmt_rows_1x2_s8(tvmt_tile *tile, const uint8_t *a) { tvmt_rows_1x2(tile, a, TVMT_ROWS_S8); }

TVMT_DOT_FUNCTION tvmt_rows_1x2_u8(tvmt_tile *tile, const uint8_t *a) { tvmt_rows_1x2(tile, a, TVMT_ROWS_U8); }

/* Accumulators of row a and the row `row_stride` behind it: tile->a0 to tile->b1. */
TVMT_INLINE void tvmt_dot_2x2(tvmt_tile *tile, const uint8_t *a, int rows_type) {
  if (rows_type == TVMT_ROWS_U8) {
    tvmt_rows_2x2_u8(tile, a);
  } else {
    tvmt_rows_2x2_s8(tile, a);
  }
}

/* Accumulators of row a alone: tile->a0 and tile->a1. */
TVMT_INLINE void tvmt_dot_1x2(tvmt_tile *tile, const uint8_t *a, int rows_type) {
  if (rows_type == TVMT_ROWS_U8) {
    tvmt_rows_1x2_u8(tile, a);
  } else {
    tvmt_rows_1x2_s8(tile, a);
  }
}

#endif
