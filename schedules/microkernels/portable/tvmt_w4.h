/* Products of a strip of up to four int8 rows with a column of int4 weights. Sums are modulo 2**32, so only the final
 * value has to fit an int32_t. No alignment is needed.
 */
#ifndef TVMT_W4_H
#define TVMT_W4_H

#include "tvmt_arith.h"
#include "tvmt_w4_format.h"

/* Rows of `depth` elements, as tvmt_w4_row counts them. */
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
    strip->rows[i] = x + tvmt_w4_row(i, count) * stride;
  }
}

#define TVMT_W4_FUNCTION TVMT_LOOP TVMT_CODE_SECTION void

/* The weights of a byte without their scale; `pair` is the byte with the top bit of each turned over. */
TVMT_INLINE int32_t tvmt_w4_even(uint32_t pair) { return (int32_t)(pair << 28) >> 28; }
TVMT_INLINE int32_t tvmt_w4_odd(uint32_t pair) { return (int32_t)(pair << 24) >> 28; }
TVMT_INLINE uint32_t tvmt_w4_pair(uint8_t packed) { return packed ^ 0x88U; }

/* acc[i] += row i . column, for four rows. */
TVMT_W4_FUNCTION tvmt_w4_four_rows(const tvmt_w4_strip *strip, const uint8_t *w, const uint8_t *groups, int32_t *acc) {
  const int8_t *x0 = strip->rows[0], *x1 = strip->rows[1], *x2 = strip->rows[2], *x3 = strip->rows[3];
  const int32_t depth = strip->depth;
  int32_t k = 0;
  while (k < depth) {
    const int32_t end = depth - k < TVMT_W4_GROUP ? depth : k + TVMT_W4_GROUP;
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (; k < end - 1; k += 2) {
      const uint32_t pair = tvmt_w4_pair(*w++);
      const int32_t even = tvmt_w4_even(pair), odd = tvmt_w4_odd(pair);
      s0 += x0[k] * even;
      s1 += x1[k] * even;
      s2 += x2[k] * even;
      s3 += x3[k] * even;
      s0 += x0[k + 1] * odd;
      s1 += x1[k + 1] * odd;
      s2 += x2[k + 1] * odd;
      s3 += x3[k + 1] * odd;
    }
    if (k < end) {
      const int32_t last = tvmt_w4_even(tvmt_w4_pair(*w));
      s0 += x0[k] * last;
      s1 += x1[k] * last;
      s2 += x2[k] * last;
      s3 += x3[k] * last;
      k++;
    }
    const int32_t scale = *groups++;
    acc[0] = tvmt_add(acc[0], s0 * scale);
    acc[1] = tvmt_add(acc[1], s1 * scale);
    acc[2] = tvmt_add(acc[2], s2 * scale);
    acc[3] = tvmt_add(acc[3], s3 * scale);
  }
}

/* acc[0] += row 0 . column. */
TVMT_W4_FUNCTION tvmt_w4_one_row(const tvmt_w4_strip *strip, const uint8_t *w, const uint8_t *groups, int32_t *acc) {
  const int8_t *x = strip->rows[0];
  const int32_t depth = strip->depth;
  int32_t k = 0, total = acc[0];
  while (k < depth) {
    const int32_t end = depth - k < TVMT_W4_GROUP ? depth : k + TVMT_W4_GROUP;
    int32_t sum = 0;
    for (; k < end - 1; k += 2) {
      const uint32_t pair = tvmt_w4_pair(*w++);
      sum += x[k] * tvmt_w4_even(pair);
      sum += x[k + 1] * tvmt_w4_odd(pair);
    }
    if (k < end) {
      sum += x[k] * tvmt_w4_even(tvmt_w4_pair(*w));
      k++;
    }
    total = tvmt_add(total, sum * *groups++);
  }
  acc[0] = total;
}

/* acc[i] += row i . column, for row 0 of a strip of one row, else for four rows as tvmt_w4_row counts them. */
TVMT_INLINE void tvmt_w4_add_products(const tvmt_w4_strip *strip, const uint8_t *w, const uint8_t *groups,
                                      int32_t acc[TVMT_W4_ROWS]) {
  if (strip->count == 1) {
    tvmt_w4_one_row(strip, w, groups, acc);
  } else {
    tvmt_w4_four_rows(strip, w, groups, acc);
  }
}

#endif
