/* One place of a depthwise convolution: every channel has taps of its own. */
#ifndef TVMT_DEPTHWISE_S8_H
#define TVMT_DEPTHWISE_S8_H

#include "tvmt_arith.h"

/* out[j] = clamp8(multiply_high(acc << shift, multiplier[j]) + zero_point),
 * acc = bias[j] + sum_r,c weight[r * w_row_stride + c * cols + j]
 *                         * (x[r * x_row_stride + c * x_col_stride + j / per_channel] - zero_point_in).
 *
 * x: the input under the first of tap_rows x tap_cols taps, those that lie inside of the input; a tap outside of it
 * adds nothing. cols: channels of the result, a multiple of per_channel, the results of an input channel.
 * bias, multiplier, out: [cols]. Strides in elements. acc << shift must fit 32 bits. out must not overlap x.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_depthwise_s8(const int8_t *x, const int8_t *weight, const int32_t *bias,
                                                       const int32_t *multiplier, int8_t *out, int32_t tap_rows,
                                                       int32_t tap_cols, int32_t cols, int32_t x_row_stride,
                                                       int32_t x_col_stride, int32_t w_row_stride, int32_t per_channel,
                                                       int32_t zero_point_in, int32_t shift, int32_t zero_point) {
  for (int32_t first = 0; first < cols; first += per_channel, x++) {
    for (int32_t j = first; j < first + per_channel; j++) {
      const int8_t *x_row = x, *w_row = weight + j;
      int32_t acc = bias[j];
      for (int32_t r = 0; r < tap_rows; r++, x_row += x_row_stride, w_row += w_row_stride) {
        for (int32_t c = 0; c < tap_cols; c++) {
          acc = tvmt_add(acc, (x_row[c * x_col_stride] - zero_point_in) * w_row[c * cols]);
        }
      }
      out[j] = tvmt_requantize_s8(acc, multiplier[j], shift, zero_point);
    }
  }
}

#endif
