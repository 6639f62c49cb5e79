/* What both residual sums share: the sum of one element, and the end of a group of four. */
#ifndef TVMT_RESIDUAL_H
#define TVMT_RESIDUAL_H

#include "tvmt_simd.h"

/* The largest left_shift whose power of two is a positive int16. */
enum { TVMT_RESIDUAL_SHIFT = 14 };

/* saturate(sum + added, bits); |added| <= 2**30. */
TVMT_INLINE int32_t tvmt_add_saturated(int32_t sum, int32_t added, int32_t bits) {
  const uint32_t limit = 1U << (bits - 1);
  const int32_t low = -(int32_t)limit, high = (int32_t)(limit - 1U);
  /* Clamped before the sum, which may not fit 32 bits, by limits that the term moves. */
  return tvmt_clamp(sum, low - added, high - added) + added;
}

#if TVMT_DSP
/* The factor of the residual in the upper half; in the lowest byte, how far a sum that fits, complemented if negative,
 * must be shifted to become 0. */
TVMT_INLINE uint32_t tvmt_residual_factor(int32_t left_shift, int32_t bits) {
  return 1U << (left_shift + 16) | (uint32_t)(bits - 1);
}

/* Stores four sums t0 to t3 and goes on to label 1 until t == end; leaves at label 2 if one does not fit. */
#define TVMT_STORE_SUMS                    \
  "eor %[even], %[t0], %[t0], asr #31\n\t" \
  "eor %[odd], %[t1], %[t1], asr #31\n\t"  \
  "orr %[even], %[even], %[odd]\n\t"       \
  "eor %[odd], %[t2], %[t2], asr #31\n\t"  \
  "orr %[even], %[even], %[odd]\n\t"       \
  "eor %[odd], %[t3], %[t3], asr #31\n\t"  \
  "orr %[even], %[even], %[odd]\n\t"       \
  "lsrs %[even], %[even], %[factor]\n\t"   \
  "bne 2f\n\t"                             \
  "strd %[t0], %[t1], [%[t]], #8\n\t"      \
  "strd %[t2], %[t3], [%[t]], #8\n\t"      \
  "cmp %[t], %[end]\n\t"                   \
  "bne 1b\n"                               \
  "2:"
#endif

#endif
