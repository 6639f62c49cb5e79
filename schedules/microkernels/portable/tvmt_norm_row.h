/* One row of a LayerNorm or RMSNorm: its sums, and its elements from their rate. */
#ifndef TVMT_NORM_ROW_H
#define TVMT_NORM_ROW_H

#include "tvmt_arith.h"

/* The sum of `cols` numbers; *squares: of their squares. */
TVMT_INLINE int32_t tvmt_norm_sums(const int32_t *t, int32_t cols, int64_t *squares) {
  int32_t sum = 0;
  int64_t total = 0;
  for (int32_t j = 0; j < cols; j++) {
    sum += t[j];
    total += (int64_t)t[j] * t[j];
  }
  *squares = total;
  return sum;
}

/* y = clamp8((multiply_high(n, gamma) + beta) >> 8), n = multiply_high((scale * t - offset) >> down, multiplier).
 *
 * scale * t - offset fits 32 bits; the product alone may not. */
TVMT_INLINE void tvmt_norm_row(const int32_t *t, const int32_t *gamma, const int32_t *beta, int8_t *y, int32_t cols,
                               uint32_t scale, uint32_t offset, int32_t down, int32_t multiplier) {
  for (int32_t j = 0; j < cols; j++) {
    const int32_t centred = (int32_t)(scale * (uint32_t)t[j] - offset) >> down;
    const int32_t normalized = tvmt_multiply_high(centred, multiplier);
    y[j] = tvmt_shift_saturate_s8(tvmt_multiply_high_add(beta[j], normalized, gamma[j]));
  }
}

#endif
