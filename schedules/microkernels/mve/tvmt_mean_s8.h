/* Mean over the rows (tokens) of an int8 tensor. */
#ifndef TVMT_MEAN_S8_H
#define TVMT_MEAN_S8_H

#include "tvmt_vectors.h"

/* out[j] = clamp8(multiply_high(acc << shift, ratio / rows) + zero_point), acc = sum_i (x[i * x_stride + j]
 * - zero_point_in).
 *
 * out: [cols], not written when rows is 0. ratio: scale_x / scale_out * 2**(32 - shift), ratio / rows < 2**31.
 * acc << shift must fit 32 bits. x_stride in elements. out must not overlap x.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_mean_s8(const int8_t *x, int8_t *out, int32_t rows, int32_t cols,
                                                  int32_t x_stride, int32_t zero_point_in, uint32_t ratio,
                                                  int32_t shift, int32_t zero_point) {
  if (rows > 0) {
    const int32_t multiplier = (int32_t)(ratio / (uint32_t)rows), start = -rows * zero_point_in;
    int32_t j = 0;
#if TVMT_MVE
    /* Four columns at a time; the last four may meet some for the second time. */
    while (cols > 3 && j < cols) {
      const int32_t first = j < cols - 4 ? j : cols - 4;
      const int8_t *column = x + first;
      int32x4_t acc = vdupq_n_s32(start);
      __asm__ volatile(
          "dls lr, %[rows]\n"
          "1:\n\t"
          "vldrb.s32 q0, [%[column]]\n\t"
          "add %[column], %[x_stride]\n\t"
          "vadd.i32 %q[acc], %q[acc], q0\n\t"
          "le lr, 1b\n\t"
          "vshl.s32 %q[acc], %[shift]\n\t"
          "vrmulh.s32 %q[acc], %q[acc], %q[factor]\n\t"
          "vadd.i32 q0, %q[acc], %[zero_point]\n\t" TVMT_CLAMP_S8("q0")
          "vstrb.32 q0, [%[y]]"
          : [column] "+&l"(column), [acc] "+&w"(acc)
          : [rows] "r"(rows), [x_stride] "r"(x_stride), [shift] "r"(shift), [y] "l"(out + first),
            [factor] "w"(vdupq_n_s32(multiplier)), [zero_point] "r"(zero_point)
          : "q0", "lr", "memory");
      j = first + 4;
    }
#endif
    for (; j < cols; j++) {
      const int8_t *column = x + j;
      int32_t acc = start;
      for (int32_t i = 0; i < rows; i++) {
        acc += column[i * x_stride];
      }
      out[j] = tvmt_requantize_s8(acc, multiplier, shift, zero_point);
    }
  }
}

#endif
