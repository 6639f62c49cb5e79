/* A tensor of int32 sums to int8, one multiplier for the tensor. */
#ifndef TVMT_REQUANTIZE_S32_S8_H
#define TVMT_REQUANTIZE_S32_S8_H

#include "tvmt_vectors.h"

/* out[i * out_stride + j] = clamp8(multiply_high(t[i * t_stride + j] << shift, multiplier) + zero_point).
 *
 * t << shift must fit 32 bits; |zero_point| <= 2**30. cols >= 1. Strides in elements. out must not overlap t.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_requantize_s32_s8(const int32_t *t, int8_t *out, int32_t rows,
                                                            int32_t cols, int32_t t_stride, int32_t out_stride,
                                                            int32_t multiplier, int32_t shift, int32_t zero_point) {
  for (int32_t i = 0; i < rows; i++) {
    const int32_t *sum = t + i * t_stride;
    int8_t *y = out + i * out_stride;
#if TVMT_MVE
    __asm__ volatile(
        "dlstp.32 lr, %[cols]\n"
        "1:\n\t"
        "vldrw.u32 q0, [%[sum]], #16\n\t"
        "vshl.s32 q0, %[shift]\n\t"
        "vrmulh.s32 q0, q0, %q[factor]\n\t"
        "vadd.i32 q0, q0, %[zero_point]\n\t" TVMT_CLAMP_S8("q0")
        "vstrb.32 q0, [%[y]], #4\n\t"
        "letp lr, 1b"
        : [sum] "+&r"(sum), [y] "+&l"(y)
        : [cols] "r"(cols), [factor] "w"(vdupq_n_s32(multiplier)), [shift] "r"(shift), [zero_point] "r"(zero_point)
        : "q0", "lr", "memory");
#else
    for (int32_t j = 0; j < cols; j++) {
      y[j] = tvmt_requantize_s8(sum[j], multiplier, shift, zero_point);
    }
#endif
  }
}

#endif
