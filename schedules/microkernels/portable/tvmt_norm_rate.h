/* What a LayerNorm multiplies a row with: its reciprocal standard deviation, in integers. */
#ifndef TVMT_NORM_RATE_H
#define TVMT_NORM_RATE_H

#include "tvmt_arith.h"

/* 1 / sqrt(value) = result * 2**-*exponent, for a positive number below 2**63; result in about [2**30, 2**31]. */
TVMT_INLINE uint32_t tvmt_reciprocal_sqrt(uint64_t value, int32_t *exponent) {
  /* value = m * 2**(32 - lead), m in [2**30, 2**32): an even shift, so that the root of 2**-lead is exact. */
  const int32_t lead = (int32_t)((uint32_t)tvmt_leading_zeros_u64(value) & ~1U);
  const uint32_t m = (uint32_t)((value << lead) >> 32);
  /* The line 2.1875 - 1.1875 m, then Newton steps y (3 - m y^2) / 2; y has 30 fractional bits. */
  uint32_t y = 2348810240U - tvmt_multiply_high_u32(m, 1275068416U);
  for (int step = 0; step < 4; step++) {
    const uint32_t square = tvmt_multiply_high_u32(y, y);
    const uint32_t product = tvmt_multiply_high_u32(m, square);
    y = (uint32_t)(((uint64_t)y * (805306368U - product)) >> 29);
  }
  *exponent = 30 + (64 - lead) / 2;
  return y;
}

/* sqrt(cols / variance) of a row times 2**24, as multiplier * 2**(left - 32) with multiplier in [2**30, 2**31).
 *
 * variance: sum of the squares of u = cols * t - sum(t), and epsilon. root_extent: sqrt(cols) * 2**24.
 */
TVMT_INLINE int32_t tvmt_norm_rate(uint64_t variance, uint32_t root_extent, int32_t *left) {
  int32_t exponent;
  const uint32_t mantissa = tvmt_reciprocal_sqrt(variance, &exponent);
  const uint64_t product = (uint64_t)root_extent * mantissa;
  const int32_t lead = tvmt_leading_zeros_u64(product) - 1;
  *left = 64 - lead - exponent;
  return (int32_t)((product << lead) >> 32);
}

#endif
