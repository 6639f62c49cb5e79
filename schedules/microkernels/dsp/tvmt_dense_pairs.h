/* Rows of a dense layer with pairs of columns: the loop over strips that all its forms share. */
#ifndef TVMT_DENSE_PAIRS_H
#define TVMT_DENSE_PAIRS_H

#include "tvmt_row_pairs.h"

/* What becomes of `rows` rows of int8, `x_stride` bytes apart, and weights as tvmt_weights.h has them.
 * workspace: min(rows, 4) * ceil(depth / 4) * 4 int16. */
TVMT_FUNCTION TVMT_CODE_SECTION __attribute__((noinline)) void tvmt_dense_pairs(const int8_t *x, void *out,
                                                                                int16_t *workspace, int32_t rows,
                                                                                int32_t x_stride, const tvmt_pairs *c,
                                                                                int finish) {
  uint32_t *strip = (uint32_t *)(void *)workspace;
  int8_t *y = (int8_t *)out;
  if (rows == 1 && (finish == TVMT_PAIRS_S8 || finish == TVMT_PAIRS_TABLE_S8 || finish == TVMT_PAIRS_S32)) {
    tvmt_widen_pairs_s8(strip, x, 1, x_stride, c->depth);
    tvmt_row_pairs(strip, out, c, finish);
    return;
  }
  while (rows > 0) {
    const int32_t taken = rows > TVMT_PAIR_ROWS ? TVMT_PAIR_ROWS : rows;
    tvmt_widen_pairs_s8(strip, x, taken, x_stride, c->depth);
    tvmt_pairs_rows(strip, y, taken, c, finish, TVMT_WIDE_WEIGHTS);
    x += taken * x_stride;
    y += 2 * c->two_rows;
    rows -= taken;
  }
}

#endif
