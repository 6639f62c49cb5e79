/* A tensor of int32 sums to int8, one multiplier for the tensor. */
#ifndef TVMT_REQUANTIZE_S32_S8_H
#define TVMT_REQUANTIZE_S32_S8_H

#include "tvmt_requantize_fours.h"

/* out[i * out_stride + j] = clamp8(multiply_high(t[i * t_stride + j] << shift, multiplier) + zero_point).
 *
 * t << shift must fit 32 bits; |zero_point| <= 2**30. Strides in elements. out must not overlap t.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_requantize_s32_s8(const int32_t *t, int8_t *out, int32_t rows,
                                                            int32_t cols, int32_t t_stride, int32_t out_stride,
                                                            int32_t multiplier, int32_t shift, int32_t zero_point) {
  for (int32_t i = 0; i < rows; i++) {
    const int32_t *row = t + i * t_stride, *end = row + cols;
    int8_t *y = out + i * out_stride;
#if TVMT_DSP
    const int32_t *fours = row + (cols & ~3);
    TVMT_REQUANTIZE_FOURS(row, fours, y, "8", "strb", "1", multiplier, shift, zero_point);
#endif
    for (; row != end; row++) {
      const int32_t value = tvmt_shift_left(*row, shift);
      *y++ = tvmt_saturate_s8(tvmt_multiply_high_add(zero_point, value, multiplier));
    }
  }
}

#endif
