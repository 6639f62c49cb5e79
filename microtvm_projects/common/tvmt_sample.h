/* The next token from a row of int16 logits: the likeliest, or drawn among the k likeliest, in integers.
 *
 * C11 and C++. The generator is PCG32 (XSH-RR 64/32; M. E. O'Neill, "PCG: A Family of Simple Fast Space-Efficient
 * Statistically Good Algorithms for Random Number Generation", 2014). Its state belongs to the caller: the same state
 * draws the same tokens. Weights are 65536 * 2**-x from tvmt_classify.h, off by less than 0.3 % of the largest; the Python
 * twin is tvmtiny/sampling.py.
 */
#ifndef TVMT_SAMPLE_H
#define TVMT_SAMPLE_H

#include <stdint.h>

#include "tvmt_classify.h"

enum { TVMT_SAMPLE_MOST = 64 }; /* most tokens to draw among */

typedef struct {
  uint64_t random;          /* state of the generator; any value, changed by each draw */
  uint32_t temperature_q16; /* what logits are divided by, times 65536; 0: the likeliest token */
  int32_t top_k;            /* tokens to draw among, 1 to TVMT_SAMPLE_MOST; fewer or more count as these */
} tvmt_sampler;

/* The next 32 random bits. */
static inline uint32_t tvmt_random_next(uint64_t *state) {
  const uint64_t old = *state;
  *state = old * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  const uint32_t shifted = (uint32_t)(((old >> 18) ^ old) >> 27), turn = (uint32_t)(old >> 59);
  return (shifted >> turn) | (shifted << ((32u - turn) & 31u));
}

/* The index of the largest of count >= 1 logits; the first of equal ones. */
static inline int32_t tvmt_greedy_s16(const int16_t *logits, int32_t count) {
  int32_t best = 0;
  for (int32_t i = 1; i < count; ++i) {
    if (logits[i] > logits[best]) best = i;
  }
  return best;
}

/* Indices of the k largest logits, the largest first, and the first of equal ones; returns their number. */
static inline int32_t tvmt_largest_s16(const int16_t *logits, int32_t count, int32_t k, int32_t *found) {
  int32_t have = 0;
  for (int32_t i = 0; i < count; ++i) {
    if (have == k && logits[i] <= logits[found[k - 1]]) continue;
    int32_t place = have < k ? have++ : k - 1;
    for (; place > 0 && logits[i] > logits[found[place - 1]]; --place) found[place] = found[place - 1];
    found[place] = i;
  }
  return have;
}

/* The next token: its index among count >= 1 logits. scale_q32: the real value of one unit of them, times 2**32. */
static inline int32_t tvmt_sample_s16(const int16_t *logits, int32_t count, int64_t scale_q32, tvmt_sampler *sampler) {
  if (sampler->temperature_q16 == 0u) return tvmt_greedy_s16(logits, count);
  int32_t found[TVMT_SAMPLE_MOST];
  uint32_t weight[TVMT_SAMPLE_MOST], total = 0;
  const int32_t k = sampler->top_k < 1 ? 1 : sampler->top_k > TVMT_SAMPLE_MOST ? TVMT_SAMPLE_MOST : sampler->top_k;
  const int32_t have = tvmt_largest_s16(logits, count, k, found);
  /* Octaves a unit, with 32 fractional bits: scale * log2(e) / temperature, log2(e) = 94548 / 65536. At most 2**47, so
   * that a distance times it fits 64 bits: further tokens have no weight. */
  uint64_t octave_q32 = ((uint64_t)scale_q32 * 94548u) / sampler->temperature_q16;
  if (octave_q32 > UINT64_C(1) << 47) octave_q32 = UINT64_C(1) << 47;
  for (int32_t i = 0; i < have; ++i) {
    const uint64_t distance = (uint64_t)((int32_t)logits[found[0]] - (int32_t)logits[found[i]]);
    weight[i] = tvmt_exp2_negative((distance * octave_q32) >> 16);
    total += weight[i];
  }
  uint32_t left = (uint32_t)(((uint64_t)tvmt_random_next(&sampler->random) * total) >> 32);
  int32_t chosen = 0;
  while (left >= weight[chosen]) left -= weight[chosen++];
  return found[chosen];
}

#endif
