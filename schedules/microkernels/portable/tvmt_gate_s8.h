/* The hidden layer of a gated feed-forward block (SwiGLU): an activation of the gate, times the other branch. */
#ifndef TVMT_GATE_S8_H
#define TVMT_GATE_S8_H

#include "tvmt_arith.h"

/* gate[i * gate_stride + j] = clamp8(multiply_high(p << shift, multiplier) + zero_point), in place, with
 * p = table[gate[i * gate_stride + j] + 128] * up[i * up_stride + j].
 *
 * table: 256 int16. p << shift must fit 32 bits. Strides in elements. up must not overlap gate.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_gate_s8(int8_t *gate, const int8_t *up, const int16_t *table, int32_t rows,
                                                  int32_t cols, int32_t gate_stride, int32_t up_stride,
                                                  int32_t multiplier, int32_t shift, int32_t zero_point) {
  const int16_t *middle = table + 128;
  for (int32_t i = 0; i < rows; i++) {
    int8_t *y = gate + i * gate_stride;
    const int8_t *x = up + i * up_stride;
    for (int32_t j = 0; j < cols; j++) {
      const int32_t product = middle[y[j]] * x[j];
      y[j] = tvmt_saturate_s8(tvmt_multiply_high_add(zero_point, tvmt_shift_left(product, shift), multiplier));
    }
  }
}

#endif
