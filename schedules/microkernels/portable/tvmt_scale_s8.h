/* A factor and an offset for each column of rows of int32 sums, to int8: what some models have in place of LayerNorm. */
#ifndef TVMT_SCALE_S8_H
#define TVMT_SCALE_S8_H

#include "tvmt_arith.h"

/* out[i * out_stride + j] = clamp8((multiply_high(t[i * t_stride + j] << shift, gamma[j]) + beta[j]) >> 8).
 *
 * gamma, beta: [cols], |beta| < 2**30. t << shift must fit 32 bits. Strides in elements. out must not overlap t.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_scale_s8(const int32_t *t, const int32_t *gamma, const int32_t *beta,
                                                   int8_t *out, int32_t rows, int32_t cols, int32_t t_stride,
                                                   int32_t out_stride, int32_t shift) {
  for (int32_t i = 0; i < rows; i++) {
    const int32_t *row = t + i * t_stride;
    int8_t *y = out + i * out_stride;
    for (int32_t j = 0; j < cols; j++) {
      const int32_t value = (int32_t)((uint32_t)row[j] << shift);
      y[j] = tvmt_shift_saturate_s8(tvmt_multiply_high_add(beta[j], value, gamma[j]));
    }
  }
}

#endif
