/* Adds an int8 tensor to a sum in int32, exactly: its scale is the sum's times a power of two. */
#ifndef TVMT_ADD_RESIDUAL_S32_H
#define TVMT_ADD_RESIDUAL_S32_H

#include "tvmt_residual.h"

/* Groups of four up to t == end, but stops before a group in which a sum does not fit; returns where it stopped. */
TVMT_INLINE int32_t *tvmt_add_residual_fours(int32_t *t, const int8_t *x, const int32_t *end, int32_t zero_point,
                                             int32_t left_shift, int32_t bits) {
#if TVMT_DSP
  const uint32_t factor_bits = tvmt_residual_factor(left_shift, bits);
  const uint32_t zero_points = ((uint32_t)zero_point & 0xFFFFU) | (uint32_t)zero_point << 16;
  int32_t t0, t1, t2, t3;
  uint32_t even, odd;
  __asm__ volatile(
      "1:\n\t"
      "ldr %[odd], [%[x]], #4\n\t"
      "ldrd %[t0], %[t1], [%[t]]\n\t"
      "ldrd %[t2], %[t3], [%[t], #8]\n\t"
      "sxtb16 %[even], %[odd]\n\t"
      "sxtb16 %[odd], %[odd], ror #8\n\t"
      "ssub16 %[even], %[even], %[zero]\n\t"
      "ssub16 %[odd], %[odd], %[zero]\n\t"
      "smlabt %[t0], %[even], %[factor], %[t0]\n\t"
      "smlabt %[t1], %[odd], %[factor], %[t1]\n\t"
      "smlatt %[t2], %[even], %[factor], %[t2]\n\t"
      "smlatt %[t3], %[odd], %[factor], %[t3]\n\t" TVMT_STORE_SUMS
      : [t] "+&r"(t), [x] "+&r"(x), [t0] "=&r"(t0), [t1] "=&r"(t1), [t2] "=&r"(t2), [t3] "=&r"(t3),
        [even] "=&r"(even), [odd] "=&r"(odd)
      : [end] "r"(end), [factor] "r"(factor_bits), [zero] "r"(zero_points)
      : "cc", "memory");
#else
  (void)x, (void)end, (void)zero_point, (void)left_shift, (void)bits;
#endif
  return t;
}

/* t[i * t_stride + j] = saturate(t + ((x[i * x_stride + j] - zero_point) << left_shift), bits), in place on t.
 *
 * bits: 2 to 31. (x - zero_point) << left_shift must lie within +-2**30. Strides in elements.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_add_residual_s32(int32_t *t, const int8_t *x, int32_t rows, int32_t cols,
                                                           int32_t t_stride, int32_t x_stride, int32_t zero_point,
                                                           int32_t left_shift, int32_t bits) {
  const int32_t fours = TVMT_DSP && left_shift <= TVMT_RESIDUAL_SHIFT ? cols & ~3 : 0;
  for (int32_t i = 0; i < rows; i++) {
    int32_t *sum = t + i * t_stride;
    const int8_t *row = x + i * x_stride;
    int32_t j = 0;
    while (j < cols) {
      if (j < fours) {
        j = (int32_t)(tvmt_add_residual_fours(sum + j, row + j, sum + fours, zero_point, left_shift, bits) - sum);
      }
      /* A group in which a sum does not fit, or the rest of the row. */
      for (const int32_t stop = j < fours ? j + 4 : cols; j < stop; j++) {
        sum[j] = tvmt_add_saturated(sum[j], tvmt_shift_left(row[j] - zero_point, left_shift), bits);
      }
    }
  }
}

#endif
