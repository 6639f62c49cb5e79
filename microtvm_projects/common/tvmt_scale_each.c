/* A factor a value. */
#include "tvmt_scale.h"

void tvmt_scale_each(const tvmt_scale_rows *rows, uint32_t phase, const int16_t *values, int8_t *out) {
  const uint32_t first = phase * rows->apart;
  for (uint32_t k = 0; k < rows->columns; k++) {
    const int64_t sum = rows->bias[first + k] + (int32_t)rows->factor[first + k] * values[k];
    out[k] = tvmt_scale_finish(sum, rows->shift[first + k]);
  }
}
