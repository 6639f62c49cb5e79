/* LayerNorm of rows of int32 sums to int8, in integers: no float, no division. */
#ifndef TVMT_LAYER_NORM_S8_H
#define TVMT_LAYER_NORM_S8_H

#include "tvmt_norm_rate.h"

/* y = clamp8((multiply_high(n, gamma[j]) + beta[j]) >> 8), n = (cols * t - sum) * sqrt(cols / variance) * 2**24.
 *
 * t: rows of `cols` int32 with cols * |t| <= 2**25. cols: at most 1024. gamma, beta: [cols], |beta| <= 2**30.
 * root_extent: floor(sqrt(cols) * 2**24). epsilon: at least 1. Strides in elements. out must not overlap t.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_layer_norm_s8(const int32_t *t, const int32_t *gamma, const int32_t *beta,
                                                        int8_t *out, int32_t rows, int32_t cols, int32_t t_stride,
                                                        int32_t out_stride, uint32_t root_extent, int64_t epsilon) {
  for (int32_t i = 0; i < rows; i++) {
    const int32_t *row = t + i * t_stride;
    int8_t *y = out + i * out_stride;
    int32_t sum = 0, left;
    int64_t squares = 0;
    for (int32_t j = 0; j < cols; j++) {
      sum += row[j];
      squares += (int64_t)row[j] * row[j];
    }
    /* sum((cols * t - sum)^2) = cols * (cols * sum(t^2) - sum^2). */
    const int64_t spread = cols * (cols * squares - (int64_t)sum * sum);
    const int32_t multiplier = tvmt_norm_rate((uint64_t)(spread + epsilon), root_extent, &left);
    const int32_t up = left > 0 ? left : 0, down = up - left;
    /* (cols * t - sum) << up, which fits 32 bits, from factors modulo 2**32. */
    const uint32_t scale = (uint32_t)cols << up, offset = (uint32_t)sum << up;
    for (int32_t j = 0; j < cols; j++) {
      const int32_t centred = (int32_t)(scale * (uint32_t)row[j] - offset) >> down;
      const int32_t normalized = tvmt_multiply_high(centred, multiplier);
      y[j] = tvmt_shift_saturate_s8(tvmt_multiply_high_add(beta[j], normalized, gamma[j]));
    }
  }
}

#endif
