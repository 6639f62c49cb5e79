/* Adds an int8 tensor to a sum in int32, exactly: its scale is the sum's times a power of two. */
#ifndef TVMT_ADD_RESIDUAL_S32_H
#define TVMT_ADD_RESIDUAL_S32_H

#include "tvmt_vectors.h"

/* t[i * t_stride + j] = saturate(t + ((x[i * x_stride + j] - zero_point) << left_shift), bits), in place on t.
 *
 * bits: 2 to 31. (x - zero_point) << left_shift must lie within +-2**30. Strides in elements. The sum saturates at 32
 * bits first, which changes nothing: bits are fewer.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_add_residual_s32(int32_t *t, const int8_t *x, int32_t rows, int32_t cols,
                                                           int32_t t_stride, int32_t x_stride, int32_t zero_point,
                                                           int32_t left_shift, int32_t bits) {
  const uint32_t limit = 1U << (bits - 1);
  const int32_t low = -(int32_t)limit, high = (int32_t)(limit - 1U);
  for (int32_t i = 0; i < rows; i++) {
    int32_t *sum = t + i * t_stride;
    const int8_t *row = x + i * x_stride;
#if TVMT_MVE
    __asm__ volatile(
        "dlstp.32 lr, %[cols]\n"
        "1:\n\t"
        "vldrb.s32 q0, [%[row]], #4\n\t"
        "vsub.i32 q0, q0, %[zero_point]\n\t"
        "vldrw.u32 q1, [%[sum]]\n\t"
        "vshl.s32 q0, %[left_shift]\n\t"
        "vqadd.s32 q0, q0, q1\n\t"
        "vmax.s32 q0, q0, %q[low]\n\t"
        "vmin.s32 q0, q0, %q[high]\n\t"
        "vstrw.32 q0, [%[sum]], #16\n\t"
        "letp lr, 1b"
        : [row] "+&l"(row), [sum] "+&r"(sum)
        : [cols] "r"(cols), [zero_point] "r"(zero_point), [left_shift] "r"(left_shift), [low] "w"(vdupq_n_s32(low)),
          [high] "w"(vdupq_n_s32(high))
        : "q0", "q1", "lr", "memory");
#else
    for (int32_t j = 0; j < cols; j++) {
      const int32_t added = tvmt_shift_left(row[j] - zero_point, left_shift);
      sum[j] = tvmt_clamp(sum[j], low - added, high - added) + added;
    }
#endif
  }
}

#endif
