/* LayerNorm of rows of int32 sums to int8, in integers: no float, no division. */
#ifndef TVMT_LAYER_NORM_S8_H
#define TVMT_LAYER_NORM_S8_H

#include "tvmt_norm_rate.h"
#include "tvmt_norm_row.h"

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
    int32_t left;
    int64_t squares;
    const int32_t sum = tvmt_norm_sums(row, cols, &squares);
    /* sum((cols * t - sum)^2) = cols * (cols * sum(t^2) - sum^2). */
    const int64_t spread = cols * (cols * squares - (int64_t)sum * sum);
    const int32_t multiplier = tvmt_norm_rate((uint64_t)(spread + epsilon), root_extent, &left);
    const int32_t up = left > 0 ? left : 0, down = up - left;
    /* (cols * t - sum) << up, which fits 32 bits, from factors modulo 2**32. */
    tvmt_norm_row(row, gamma, beta, out + i * out_stride, cols, (uint32_t)cols << up, (uint32_t)sum << up, down,
                  multiplier);
  }
}

#endif
