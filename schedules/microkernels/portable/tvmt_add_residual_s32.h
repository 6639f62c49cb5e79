/* Adds an int8 tensor to a sum in int32, exactly: its scale is the sum's times a power of two. */
#ifndef TVMT_ADD_RESIDUAL_S32_H
#define TVMT_ADD_RESIDUAL_S32_H

#include "tvmt_arith.h"

/* t[i * t_stride + j] = saturate(t + ((x[i * x_stride + j] - zero_point) << left_shift), bits), in place on t.
 *
 * bits: 2 to 31. (x - zero_point) << left_shift must lie within +-2**30. Strides in elements.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_add_residual_s32(int32_t *t, const int8_t *x, int32_t rows, int32_t cols,
                                                           int32_t t_stride, int32_t x_stride, int32_t zero_point,
                                                           int32_t left_shift, int32_t bits) {
  const uint32_t limit = 1U << (bits - 1);
  const int32_t low = -(int32_t)limit, high = (int32_t)(limit - 1U);
  /* Moves the admissible range of the sum to 0..2 * limit - 1, where one comparison tells. */
  const uint32_t bias = limit - ((uint32_t)zero_point << left_shift);
  for (int32_t i = 0; i < rows; i++) {
    int32_t *sum = t + i * t_stride;
    const int8_t *row = x + i * x_stride;
    for (int32_t j = 0; j < cols; j++) {
      const uint32_t term = (uint32_t)row[j] << left_shift;
      const uint32_t moved = (uint32_t)sum[j] + term + bias;
      if (__builtin_expect(moved < 2U * limit, 1)) {
        sum[j] = (int32_t)(moved - limit);
      } else {
        /* Clamped before the sum, which may not fit 32 bits, by limits that the term moves. */
        const int32_t added = (int32_t)(term + bias - limit);
        sum[j] = tvmt_clamp(sum[j], low - added, high - added) + added;
      }
    }
  }
}

#endif
