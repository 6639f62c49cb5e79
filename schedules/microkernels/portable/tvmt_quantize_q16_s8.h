/* Sensor values in Q16.16 to int8, with a scale and zero point a column. */
#ifndef TVMT_QUANTIZE_Q16_S8_H
#define TVMT_QUANTIZE_Q16_S8_H

#include "tvmt_arith.h"

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
    for (int32_t j = 0; j < cols; j++) {
      const int32_t clamped = tvmt_clamp(value[i * cols + j], -limit, limit);
      out[i * cols + j] = tvmt_requantize_s8(clamped, multiplier[j], shift, zero_point[j]);
    }
  }
}

#endif
