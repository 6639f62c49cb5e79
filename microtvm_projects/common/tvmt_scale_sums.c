/* A row of factors a result, as in a cosine transform. */
#include "tvmt_scale.h"

/* sum + the products of two pairs of neighbours. */
TVMT_INLINE int64_t add_pair(int64_t sum, const int16_t *a, const int16_t *b) {
#if TVMT_DSP
  uint32_t low = (uint32_t)sum, high = (uint32_t)((uint64_t)sum >> 32), x, y;
  memcpy(&x, a, sizeof x);
  memcpy(&y, b, sizeof y);
  __asm__("smlald %0, %1, %2, %3" : "+r"(low), "+r"(high) : "r"(x), "r"(y));
  return (int64_t)((uint64_t)high << 32 | low);
#else
  return sum + (int32_t)a[0] * b[0] + (int32_t)a[1] * b[1];
#endif
}

TVMT_CODE_SECTION void tvmt_scale_sums(const tvmt_scale_rows *rows, uint32_t phase, const int16_t *values,
                                       int8_t *out) {
  const uint32_t first = phase * rows->apart, count = rows->values;
  const int16_t *factor = &rows->factor[first * count];
  for (uint32_t k = 0; k < rows->columns; k++) {
    const int16_t *value = values, *end = &values[count & ~1U];
    int64_t sum = rows->bias[first + k];
    for (; value < end; value += 2, factor += 2) {
      sum = add_pair(sum, factor, value);
    }
    if ((count & 1U) != 0U) {
      sum += (int32_t)*factor++ * *value;
    }
    out[k] = tvmt_scale_finish(sum, rows->shift[first + k]);
  }
}
