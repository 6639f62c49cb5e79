/* Features to the int8 of a model's input, by integer multipliers that fold everything linear: units, normalisation,
 * the cosine transform, the input's scale and zero point. C11 and C++. */
#ifndef TVMT_SCALE_H
#define TVMT_SCALE_H

#include "tvmt_arith.h"

#ifdef __cplusplus
extern "C" {
#endif

/* out[k] = clamp8((bias[k] + sum) >> shift[k]); the sum is exact in 64 bits. */
typedef struct {
  const int16_t *factor;
  const int64_t *bias;  /* with the zero point and the half that makes the shift round */
  const uint8_t *shift; /* 0 to 62 */
  uint16_t values;      /* that come in */
  uint16_t columns;     /* that go out, of one phase */
  uint16_t apart;       /* rows of factors from a phase to the next: `columns`, or 0 where all have the same */
} tvmt_scale_rows;

/* phase: of the token's rows, which one this is; each may have a set of factors, biases and shifts of its own. */
typedef void (*tvmt_scale_function)(const tvmt_scale_rows *rows, uint32_t phase, const int16_t *values, int8_t *out);

/* sum = factor[k] values[k] */
void tvmt_scale_each(const tvmt_scale_rows *rows, uint32_t phase, const int16_t *values, int8_t *out);

/* sum = factor[k][0] values[0] + factor[k][1] values[1] + ... */
void tvmt_scale_sums(const tvmt_scale_rows *rows, uint32_t phase, const int16_t *values, int8_t *out);

TVMT_INLINE int8_t tvmt_scale_finish(int64_t sum, uint32_t shift) {
  const int64_t value = sum >> shift;
  return (int8_t)(value < INT8_MIN ? INT8_MIN : value > INT8_MAX ? INT8_MAX : value);
}

#ifdef __cplusplus
}
#endif

#endif
