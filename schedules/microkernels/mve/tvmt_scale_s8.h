/* A factor and an offset for each column of rows of int32 sums, to int8: what some models have in place of LayerNorm. */
#ifndef TVMT_SCALE_S8_H
#define TVMT_SCALE_S8_H

#include "tvmt_vectors.h"

/* out[i * out_stride + j] = clamp8((multiply_high(t[i * t_stride + j] << shift, gamma[j]) + beta[j]) >> 8).
 *
 * gamma, beta: [cols], |beta| < 2**30. t << shift must fit 32 bits. cols >= 1. Strides in elements. out must not
 * overlap t.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_scale_s8(const int32_t *t, const int32_t *gamma, const int32_t *beta,
                                                   int8_t *out, int32_t rows, int32_t cols, int32_t t_stride,
                                                   int32_t out_stride, int32_t shift) {
  for (int32_t i = 0; i < rows; i++) {
    const int32_t *row = t + i * t_stride;
    int8_t *y = out + i * out_stride;
#if TVMT_MVE
    const int32_t *factor = gamma, *offset = beta;
    __asm__ volatile(
        "dlstp.32 lr, %[cols]\n"
        "1:\n\t"
        "vldrw.u32 q0, [%[row]], #16\n\t"
        "vldrw.u32 q1, [%[factor]], #16\n\t"
        "vshl.s32 q0, %[shift]\n\t"
        "vrmulh.s32 q0, q0, q1\n\t"
        "vldrw.u32 q1, [%[offset]], #16\n\t"
        "vadd.i32 q0, q0, q1\n\t"
        "vshr.s32 q0, q0, #8\n\t" TVMT_CLAMP_S8("q0")
        "vstrb.32 q0, [%[y]], #4\n\t"
        "letp lr, 1b"
        : [row] "+r"(row), [factor] "+r"(factor), [offset] "+r"(offset), [y] "+l"(y)
        : [cols] "r"(cols), [shift] "r"(shift)
        : "q0", "q1", "lr", "memory");
#else
    for (int32_t j = 0; j < cols; j++) {
      const int32_t value = tvmt_shift_left(row[j], shift);
      y[j] = tvmt_shift_saturate_s8(tvmt_multiply_high_add(beta[j], value, gamma[j]));
    }
#endif
  }
}

#endif
