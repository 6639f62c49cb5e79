/* Adds an int16 residual stream to a sum in int32, exactly: its scale is the sum's times a power of two. */
#ifndef TVMT_ADD_RESIDUAL_S16_S32_H
#define TVMT_ADD_RESIDUAL_S16_S32_H

#include "tvmt_residual.h"

/* Groups of four up to t == end, but stops before a group in which a sum does not fit; returns where it stopped. */
TVMT_INLINE int32_t *tvmt_add_residual_s16_fours(int32_t *t, const int16_t *x, const int32_t *end,
                                                 int32_t left_shift, int32_t bits) {
#if TVMT_DSP
  const uint32_t factor_bits = tvmt_residual_factor(left_shift, bits);
  int32_t t0, t1, t2, t3;
  uint32_t even, odd;
  /* even and odd begin as elements 0, 1 and 2, 3: an int16 is a lane as it is. */
  __asm__ volatile(
      "1:\n\t"
      "ldr %[even], [%[x]], #4\n\t"
      "ldr %[odd], [%[x]], #4\n\t"
      "ldrd %[t0], %[t1], [%[t]]\n\t"
      "ldrd %[t2], %[t3], [%[t], #8]\n\t"
      "smlabt %[t0], %[even], %[factor], %[t0]\n\t"
      "smlatt %[t1], %[even], %[factor], %[t1]\n\t"
      "smlabt %[t2], %[odd], %[factor], %[t2]\n\t"
      "smlatt %[t3], %[odd], %[factor], %[t3]\n\t" TVMT_STORE_SUMS
      : [t] "+&r"(t), [x] "+&r"(x), [t0] "=&r"(t0), [t1] "=&r"(t1), [t2] "=&r"(t2), [t3] "=&r"(t3),
        [even] "=&r"(even), [odd] "=&r"(odd)
      : [end] "r"(end), [factor] "r"(factor_bits)
      : "cc", "memory");
#else
  (void)x, (void)end, (void)left_shift, (void)bits;
#endif
  return t;
}

/* t[i * t_stride + j] = saturate(t + (x[i * x_stride + j] << left_shift), bits), in place on t.
 *
 * bits: 2 to 31. left_shift: 0 to 15, so that the term lies within +-2**30. Strides in elements.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_add_residual_s16_s32(int32_t *t, const int16_t *x, int32_t rows,
                                                               int32_t cols, int32_t t_stride, int32_t x_stride,
                                                               int32_t left_shift, int32_t bits) {
  const int32_t fours = TVMT_DSP && left_shift <= TVMT_RESIDUAL_SHIFT ? cols & ~3 : 0;
  for (int32_t i = 0; i < rows; i++) {
    int32_t *sum = t + i * t_stride;
    const int16_t *row = x + i * x_stride;
    int32_t j = 0;
    while (j < cols) {
      if (j < fours) {
        j = (int32_t)(tvmt_add_residual_s16_fours(sum + j, row + j, sum + fours, left_shift, bits) - sum);
      }
      /* A group in which a sum does not fit, or the rest of the row. */
      for (const int32_t stop = j < fours ? j + 4 : cols; j < stop; j++) {
        sum[j] = tvmt_add_saturated(sum[j], tvmt_shift_left(row[j], left_shift), bits);
      }
    }
  }
}

#endif
