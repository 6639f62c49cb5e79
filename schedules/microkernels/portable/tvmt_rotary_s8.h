/* Rotary positions: the halves of each row of a projection, turned by the angles of its token. */
#ifndef TVMT_ROTARY_S8_H
#define TVMT_ROTARY_S8_H

#include "tvmt_arith.h"

enum { TVMT_ROTARY_BITS = 20 }; /* six fractional bits of t, fourteen of cosines and sines */

/* With a, b = t[i][j], t[i][cols / 2 + j], clamped to 16 bits, and c, s = table[i][j], table[i][cols / 2 + j]:
 * out[i][j] = clamp8((a c - b s + 2**19) >> 20), out[i][cols / 2 + j] = clamp8((a s + b c + 2**19) >> 20).
 *
 * t: in units of the result's scale / 64. table: [rows][cols], cosines, then sines, times 2**14, c c + s s about 2**28,
 * so that no sum exceeds 2**30. cols: even. Strides in elements. out must not overlap t.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_rotary_s8(const int32_t *t, const int16_t *table, int8_t *out, int32_t rows,
                                                    int32_t cols, int32_t t_stride, int32_t out_stride) {
  const int32_t half = cols >> 1, rounding = 1 << (TVMT_ROTARY_BITS - 1);
  for (int32_t i = 0; i < rows; i++) {
    const int32_t *row = t + i * t_stride;
    const int16_t *cosine = table + i * cols, *sine = cosine + half;
    int8_t *y = out + i * out_stride;
    for (int32_t j = 0; j < half; j++) {
      const int32_t a = tvmt_clamp(row[j], -32768, 32767), b = tvmt_clamp(row[half + j], -32768, 32767);
      y[j] = tvmt_saturate_s8((a * cosine[j] - b * sine[j] + rounding) >> TVMT_ROTARY_BITS);
      y[half + j] = tvmt_saturate_s8((a * sine[j] + b * cosine[j] + rounding) >> TVMT_ROTARY_BITS);
    }
  }
}

#endif
