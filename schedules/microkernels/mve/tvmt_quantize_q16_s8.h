/* Sensor values in Q16.16 to int8, with a scale and zero point a column. */
#ifndef TVMT_QUANTIZE_Q16_S8_H
#define TVMT_QUANTIZE_Q16_S8_H

#include "tvmt_vectors.h"

/* out[i * cols + j] = clamp8(multiply_high(clamp(value[i * cols + j], +-limit) << shift, multiplier[j])
 * + zero_point[j]), limit = 2**(31 - shift) - 1.
 *
 * value, out: [rows][cols]. multiplier, zero_point: [cols], |zero_point| <= 2**30. shift: 0 to 30. out must not
 * overlap value.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_quantize_q16_s8(const int32_t *value, const int32_t *multiplier,
                                                          const int32_t *zero_point, int8_t *out, int32_t rows,
                                                          int32_t cols, int32_t shift) {
  const int32_t limit = (int32_t)((1U << (31 - shift)) - 1U);
  for (int32_t i = 0; i < rows; i++) {
    const int32_t *own = value + i * cols;
    int8_t *y = out + i * cols;
#if TVMT_MVE
    const int32_t *factor = multiplier, *zero = zero_point;
    __asm__ volatile(
        "dlstp.32 lr, %[cols]\n"
        "1:\n\t"
        "vldrw.u32 q0, [%[own]], #16\n\t"
        "vmax.s32 q0, q0, %q[low]\n\t"
        "vldrw.u32 q1, [%[factor]], #16\n\t"
        "vmin.s32 q0, q0, %q[high]\n\t"
        "vshl.s32 q0, %[shift]\n\t"
        "vrmulh.s32 q0, q0, q1\n\t"
        "vldrw.u32 q1, [%[zero]], #16\n\t"
        "vadd.i32 q0, q0, q1\n\t" TVMT_CLAMP_S8("q0")
        "vstrb.32 q0, [%[y]], #4\n\t"
        "letp lr, 1b"
        : [own] "+&r"(own), [factor] "+&r"(factor), [zero] "+&r"(zero), [y] "+&l"(y)
        : [cols] "r"(cols), [shift] "r"(shift), [low] "w"(vdupq_n_s32(-limit)), [high] "w"(vdupq_n_s32(limit))
        : "q0", "q1", "lr", "memory");
#else
    for (int32_t j = 0; j < cols; j++) {
      y[j] = tvmt_requantize_s8(tvmt_clamp(own[j], -limit, limit), multiplier[j], shift, zero_point[j]);
    }
#endif
  }
}

#endif
