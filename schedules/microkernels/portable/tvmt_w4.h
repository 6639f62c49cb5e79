/* Products of a strip of up to four int8 rows with a column of int4 weights. Sums are modulo 2**32, so only the final
 * value has to fit an int32_t. No alignment is needed.
 */
#ifndef TVMT_W4_H
#define TVMT_W4_H

#include "tvmt_arith.h"
#include "tvmt_w4_format.h"

/* Rows of the largest strip. */
enum { TVMT_W4_ROWS = 4 };

/* Rows of `depth` elements; where the strip has fewer than four, the last stands for those that are missing. */
typedef struct {
  const int8_t *rows[TVMT_W4_ROWS];
  int32_t count, depth;
} tvmt_w4_strip;

/* The strip of `count` rows from x, `stride` elements apart. workspace: not used. */
TVMT_INLINE void tvmt_w4_take(tvmt_w4_strip *strip, const int8_t *x, int32_t stride, int32_t count, int32_t depth,
                              int16_t *workspace) {
  (void)workspace;
  strip->count = count;
  strip->depth = depth;
  for (int32_t i = 0; i < TVMT_W4_ROWS; i++) {
    strip->rows[i] = x + (i < count ? i : count - 1) * stride;
  }
}

/* The loops are functions of their own: inside a kernel they would lose registers to what surrounds them. */
#define TVMT_W4_FUNCTION TVMT_FUNCTION TVMT_CODE_SECTION __attribute__((noinline)) void

/* acc[i] += row i . column, for four rows. */
TVMT_W4_FUNCTION tvmt_w4_four_rows(const tvmt_w4_strip *strip, const uint8_t *w, const uint8_t *groups, int32_t *acc) {
  const int8_t *x0 = strip->rows[0], *x1 = strip->rows[1], *x2 = strip->rows[2], *x3 = strip->rows[3];
  int32_t a0 = acc[0], a1 = acc[1], a2 = acc[2], a3 = acc[3];
  for (int32_t left = strip->depth; left > 0; left -= TVMT_W4_GROUP) {
    const int32_t scale = *groups++, zero = -8 * scale;
    int32_t count = left < TVMT_W4_GROUP ? left : TVMT_W4_GROUP;
    for (; count > 1; count -= 2) {
      const int32_t pair = *w++, even = scale * (pair & 15) + zero, odd = scale * (pair >> 4) + zero;
      a0 = tvmt_add(a0, x0[0] * even + x0[1] * odd);
      a1 = tvmt_add(a1, x1[0] * even + x1[1] * odd);
      a2 = tvmt_add(a2, x2[0] * even + x2[1] * odd);
      a3 = tvmt_add(a3, x3[0] * even + x3[1] * odd);
      x0 += 2;
      x1 += 2;
      x2 += 2;
      x3 += 2;
    }
    if (count > 0) {
      const int32_t last = scale * (*w & 15) + zero;
      a0 = tvmt_add(a0, *x0 * last);
      a1 = tvmt_add(a1, *x1 * last);
      a2 = tvmt_add(a2, *x2 * last);
      a3 = tvmt_add(a3, *x3 * last);
    }
  }
  acc[0] = a0;
  acc[1] = a1;
  acc[2] = a2;
  acc[3] = a3;
}

/* acc[0] += row 0 . column. */
TVMT_W4_FUNCTION tvmt_w4_one_row(const tvmt_w4_strip *strip, const uint8_t *w, const uint8_t *groups, int32_t *acc) {
  const int8_t *x = strip->rows[0];
  for (int32_t left = strip->depth; left > 0; left -= TVMT_W4_GROUP) {
    int32_t sum = 0, count = left < TVMT_W4_GROUP ? left : TVMT_W4_GROUP;
    for (; count > 1; count -= 2) {
      const int32_t pair = *w++;
      sum += x[0] * ((pair & 15) - 8) + x[1] * ((pair >> 4) - 8);
      x += 2;
    }
    if (count > 0) {
      sum += *x * ((*w & 15) - 8);
    }
    acc[0] = tvmt_add(acc[0], sum * *groups++);
  }
}

/* acc[i] += row i . column, for the rows of the strip; the others of the four may change, too. */
TVMT_INLINE void tvmt_w4_add_products(const tvmt_w4_strip *strip, const uint8_t *w, const uint8_t *groups,
                                      int32_t acc[TVMT_W4_ROWS]) {
  if (strip->count == 1) {
    tvmt_w4_one_row(strip, w, groups, acc);
  } else {
    tvmt_w4_four_rows(strip, w, groups, acc);
  }
}

#endif
