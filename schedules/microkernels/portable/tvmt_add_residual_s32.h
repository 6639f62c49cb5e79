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
  const int32_t limit = (int32_t)(1U << (bits - 1));
  for (int32_t i = 0; i < rows; i++) {
    for (int32_t j = 0; j < cols; j++) {
      /* Clamped before the sum, by limits that the term moves: the sum of any t would not fit 32 bits. */
      const int32_t term = tvmt_shift_left(x[i * x_stride + j] - zero_point, left_shift);
      const int32_t value = t[i * t_stride + j];
      t[i * t_stride + j] = tvmt_clamp(value, -limit - term, limit - 1 - term) + term;
    }
  }
}

#endif
