/* The best class of a row of logits and how certain it is, in integers: for a rejection threshold on the device.
 *
 * C11 and C++. confidence = 1000 / sum(exp(logit - best logit)): the softmax probability of the best class, per mille.
 * 2**-f for f in [0, 1) is 1 - f * (0.671573 - 0.171573 * f), exact at 0, 1/2 and 1, off by less than 0.003 between;
 * the confidence is off by less than 4 per mille.
 */
#ifndef TVMT_CLASSIFY_H
#define TVMT_CLASSIFY_H

#include <stdint.h>

typedef struct {
  int32_t best;       /* index of the largest logit; the first of equal ones */
  int32_t confidence; /* per mille, 1 to 1000 */
} tvmt_class;

/* 65536 * exp(-distance), distance in units of 2**-16 octaves (a factor of two). */
static inline uint32_t tvmt_exp2_negative(uint64_t octaves_q16) {
  uint32_t whole = (uint32_t)(octaves_q16 >> 16 > 31 ? 31 : octaves_q16 >> 16);
  uint32_t f = (uint32_t)(octaves_q16 & 0xFFFFu);
  uint32_t slope = 44012u - ((11244u * f) >> 16);
  return (65536u - ((slope * f) >> 16)) >> whole;
}

/* count >= 1; scale_q32: the real value of one unit of the logits, times 2**32. */
static inline tvmt_class tvmt_classify_s16(const int16_t *logits, int32_t count, int64_t scale_q32) {
  tvmt_class result = {0, 0};
  for (int32_t i = 1; i < count; ++i) {
    if (logits[i] > logits[result.best]) result.best = i;
  }
  /* octaves a unit, with 32 fractional bits: scale * log2(e), log2(e) = 94548 / 65536 */
  uint64_t octave_q32 = ((uint64_t)scale_q32 * 94548u) >> 16;
  uint32_t sum = 0;
  for (int32_t i = 0; i < count; ++i) {
    uint64_t distance = (uint64_t)((int32_t)logits[result.best] - (int32_t)logits[i]);
    sum += tvmt_exp2_negative((distance * octave_q32) >> 16);
  }
  result.confidence = (int32_t)((65536u * UINT64_C(1000)) / sum);
  return result;
}

#endif
