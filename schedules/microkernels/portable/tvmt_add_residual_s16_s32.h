/* Adds an int16 residual stream to a sum in int32, exactly: its scale is the sum's times a power of two. */
#ifndef TVMT_ADD_RESIDUAL_S16_S32_H
#define TVMT_ADD_RESIDUAL_S16_S32_H

#include "tvmt_arith.h"

/* t[i * t_stride + j] = saturate(t + (x[i * x_stride + j] << left_shift), bits), in place on t.
 *
 * bits: 2 to 31. left_shift: 0 to 15, so that the term lies within +-2**30. Strides in elements.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_add_residual_s16_s32(int32_t *t, const int16_t *x, int32_t rows,
                                                               int32_t cols, int32_t t_stride, int32_t x_stride,
                                                               int32_t left_shift, int32_t bits) {
  const uint32_t limit = 1U << (bits - 1);
  const int32_t low = -(int32_t)limit, high = (int32_t)(limit - 1U);
  for (int32_t i = 0; i < rows; i++) {
    int32_t *sum = t + i * t_stride;
    const int16_t *row = x + i * x_stride;
    for (int32_t j = 0; j < cols; j++) {
      const uint32_t term = (uint32_t)row[j] << left_shift;
      /* The admissible range of the sum is moved to 0..2 * limit - 1, where one comparison tells. */
      const uint32_t moved = (uint32_t)sum[j] + term + limit;
      if (__builtin_expect(moved < 2U * limit, 1)) {
        sum[j] = (int32_t)(moved - limit);
      } else {
        /* Clamped before the sum, which may not fit 32 bits, by limits that the term moves. */
        sum[j] = tvmt_clamp(sum[j], low - (int32_t)term, high - (int32_t)term) + (int32_t)term;
      }
    }
  }
}

#endif
