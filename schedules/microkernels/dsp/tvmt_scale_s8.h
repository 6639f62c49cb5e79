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
    const int32_t *row = t + i * t_stride, *end = row + cols, *factor = gamma, *offset = beta;
    int8_t *y = out + i * out_stride;
#if TVMT_DSP
    const int32_t *pairs = row + (cols & ~1);
    int32_t t0, t1, f0, f1, o0, o1;
    if (row != pairs) {
      __asm__ volatile(
          "1:\n\t"
          "ldrd %[t0], %[t1], [%[row]], #8\n\t"
          "ldrd %[f0], %[f1], [%[factor]], #8\n\t"
          "lsl %[t0], %[shift]\n\t"
          "lsl %[t1], %[shift]\n\t"
          "ldrd %[o0], %[o1], [%[offset]], #8\n\t"
          "smmlar %[t0], %[t0], %[f0], %[o0]\n\t"
          "smmlar %[t1], %[t1], %[f1], %[o1]\n\t"
          "ssat %[t0], #8, %[t0], asr #8\n\t"
          "ssat %[t1], #8, %[t1], asr #8\n\t"
          "cmp %[row], %[pairs]\n\t"
          "strb %[t0], [%[y]], #1\n\t"
          "strb %[t1], [%[y]], #1\n\t"
          "bne 1b"
          : [row] "+r"(row), [factor] "+r"(factor), [offset] "+r"(offset), [y] "+r"(y), [t0] "=&r"(t0),
            [t1] "=&r"(t1), [f0] "=&r"(f0), [f1] "=&r"(f1), [o0] "=&r"(o0), [o1] "=&r"(o1)
          : [pairs] "r"(pairs), [shift] "r"(shift)
          : "cc", "memory");
    }
#endif
    for (; row != end; row++) {
      const int32_t value = tvmt_shift_left(*row, shift);
      *y++ = tvmt_shift_saturate_s8(tvmt_multiply_high_add(*offset++, value, *factor++));
    }
  }
}

#endif
