/* Mean over the rows (tokens) of an int16 residual stream, left in int32. */
#ifndef TVMT_MEAN_S16_S32_H
#define TVMT_MEAN_S16_S32_H

#include "tvmt_vectors.h"

/* out[j] = multiply_high(acc << shift, ratio / rows), acc = sum_i x[i * x_stride + j].
 *
 * out: [cols], not written when rows is 0. ratio: scale_x / scale_out * 2**(32 - shift), ratio / rows < 2**31.
 * acc << shift must fit 32 bits. x_stride in elements. out must not overlap x.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_mean_s16_s32(const int16_t *x, int32_t *out, int32_t rows, int32_t cols,
                                                       int32_t x_stride, uint32_t ratio, int32_t shift) {
  if (rows > 0) {
    const int32_t multiplier = (int32_t)(ratio / (uint32_t)rows);
    int32_t j = 0;
#if TVMT_MVE
    /* Four columns at a time; the last four may meet some for the second time. */
    while (cols > 3 && j < cols) {
      const int32_t first = j < cols - 4 ? j : cols - 4;
      const int16_t *column = x + first;
      int32x4_t acc = vdupq_n_s32(0);
      __asm__ volatile(
          "dls lr, %[rows]\n"
          "1:\n\t"
          "vldrh.s32 q0, [%[column]]\n\t"
          "add %[column], %[step]\n\t"
          "vadd.i32 %q[acc], %q[acc], q0\n\t"
          "le lr, 1b\n\t"
          "vshl.s32 %q[acc], %[shift]\n\t"
          "vrmulh.s32 %q[acc], %q[acc], %q[factor]\n\t"
          "vstrw.32 %q[acc], [%[y]]"
          : [column] "+l"(column), [acc] "+w"(acc)
          : [rows] "r"(rows), [step] "r"(2 * x_stride), [shift] "r"(shift), [y] "r"(out + first),
            [factor] "w"(vdupq_n_s32(multiplier))
          : "q0", "lr", "memory");
      j = first + 4;
    }
#endif
    for (; j < cols; j++) {
      const int16_t *column = x + j;
      int32_t acc = 0;
      for (int32_t i = 0; i < rows; i++) {
        acc += column[i * x_stride];
      }
      out[j] = tvmt_multiply_high(tvmt_shift_left(acc, shift), multiplier);
    }
  }
}

#endif
