/* Any function of one int8 value (GELU, tanh, sigmoid) as a table of 256 entries. */
#ifndef TVMT_LOOKUP_S8_H
#define TVMT_LOOKUP_S8_H

#include "tvmt_platform.h"

/* x[i * x_stride + j] = table[x[i * x_stride + j] + 128], in place.
 *
 * table: 256 int8. x_stride in elements.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_lookup_s8(int8_t *x, const int8_t *table, int32_t rows, int32_t cols,
                                                    int32_t x_stride) {
  const int8_t *middle = table + 128;
  for (int32_t i = 0; i < rows; i++) {
    int8_t *y = x + i * x_stride;
    int32_t j = cols;
    for (; j > 3; j -= 4) {
      y[0] = middle[y[0]];
      y[1] = middle[y[1]];
      y[2] = middle[y[2]];
      y[3] = middle[y[3]];
      y += 4;
    }
    for (; j > 0; j--) {
      *y = middle[*y];
      y++;
    }
  }
}

#endif
