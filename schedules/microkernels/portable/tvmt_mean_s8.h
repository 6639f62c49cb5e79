/* Mean over the rows (tokens) of an int8 tensor. */
#ifndef TVMT_MEAN_S8_H
#define TVMT_MEAN_S8_H

#include "tvmt_arith.h"

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
    const int32_t multiplier = (int32_t)(ratio / (uint32_t)rows);
    for (int32_t j = 0; j < cols; j++) {
      const int8_t *column = x + j;
      int32_t acc = -rows * zero_point_in;
      for (int32_t i = 0; i < rows; i++) {
        acc += column[i * x_stride];
      }
      out[j] = tvmt_requantize_s8(acc, multiplier, shift, zero_point);
    }
  }
}

#endif
