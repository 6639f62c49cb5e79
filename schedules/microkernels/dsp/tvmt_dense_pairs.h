/* Rows of a dense layer with pairs of columns: the loop over strips that all its forms share. */
#ifndef TVMT_DENSE_PAIRS_H
#define TVMT_DENSE_PAIRS_H

#include "tvmt_row_pairs.h"

/* What becomes of `rows` rows of int8, `x_stride` bytes apart, and weights as tvmt_weights.h has them.
 * workspace: R * ceil(depth / 4) * 4 int16, where R is rows if that is 1 or 2, else 4. */
TVMT_SHARED TVMT_CODE_SECTION void tvmt_dense_pairs(const int8_t *x, void *out,
                                                                                int16_t *workspace, int32_t rows,
                                                                                int32_t x_stride, const tvmt_pairs *c,
                                                                                int finish) {
  uint32_t *strip = (uint32_t *)(void *)workspace;
  int8_t *y = (int8_t *)out;
  if (rows == 1 && finish != TVMT_PAIRS_KEYS_S8) {
    tvmt_widen_pairs_s8(strip, (const uint8_t *)x, 1, x_stride, 0, c->depth);
    tvmt_row_pairs(strip, out, c, finish);
    return;
  }
  while (rows > 0) {
    const uint8_t *bytes = (const uint8_t *)x;
#if TVMT_WIDE_WEIGHTS
    const int32_t taken = tvmt_pairs_take(strip, bytes, y, rows, x_stride, c, finish, 1, 1);
#else
    const int32_t taken = tvmt_pairs_strip(strip, bytes, y, rows, x_stride, c, finish, 1);
#endif
    x += taken * x_stride;
    y += 2 * c->two_rows;
    rows -= taken;
  }
}

#endif
