/* A tensor of int32 sums to int8, one multiplier for the tensor. */
#ifndef TVMT_REQUANTIZE_S32_S8_H
#define TVMT_REQUANTIZE_S32_S8_H

#include "tvmt_arith.h"

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
    int32_t t0, t1, t2, t3;
    if (row != fours) {
      __asm__ volatile(
          "1:\n\t"
          "ldrd %[t0], %[t1], [%[row]], #8\n\t"
          "ldrd %[t2], %[t3], [%[row]], #8\n\t"
          "lsl %[t0], %[shift]\n\t"
          "lsl %[t1], %[shift]\n\t"
          "lsl %[t2], %[shift]\n\t"
          "lsl %[t3], %[shift]\n\t"
          "smmlar %[t0], %[t0], %[multiplier], %[zero_point]\n\t"
          "smmlar %[t1], %[t1], %[multiplier], %[zero_point]\n\t"
          "smmlar %[t2], %[t2], %[multiplier], %[zero_point]\n\t"
          "smmlar %[t3], %[t3], %[multiplier], %[zero_point]\n\t"
          "ssat %[t0], #8, %[t0]\n\t"
          "ssat %[t1], #8, %[t1]\n\t"
          "ssat %[t2], #8, %[t2]\n\t"
          "ssat %[t3], #8, %[t3]\n\t"
          "cmp %[row], %[fours]\n\t"
          "strb %[t0], [%[y]], #1\n\t"
          "strb %[t1], [%[y]], #1\n\t"
          "strb %[t2], [%[y]], #1\n\t"
          "strb %[t3], [%[y]], #1\n\t"
          "bne 1b"
          : [row] "+r"(row), [y] "+r"(y), [t0] "=&r"(t0), [t1] "=&r"(t1), [t2] "=&r"(t2), [t3] "=&r"(t3)
          : [fours] "r"(fours), [shift] "r"(shift), [multiplier] "r"(multiplier), [zero_point] "r"(zero_point)
          : "cc", "memory");
    }
#endif
    for (; row != end; row++) {
      const int32_t value = tvmt_shift_left(*row, shift);
      *y++ = tvmt_saturate_s8(tvmt_multiply_high_add(zero_point, value, multiplier));
    }
  }
}

#endif
