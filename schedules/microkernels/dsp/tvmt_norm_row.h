/* One row of a LayerNorm or RMSNorm: its sums, and its elements from their rate. */
#ifndef TVMT_NORM_ROW_H
#define TVMT_NORM_ROW_H

#include "tvmt_assembly.h"
#include "tvmt_arith.h"

#if TVMT_DSP
#define TVMT_NORM_SUM_TWO                            \
  "ldrd %[t0], %[t1], [%[t]], #8\n\t"                \
  "add %[sum], %[t0]\n\t"                            \
  "smlal %[low], %[high], %[t0], %[t0]\n\t"          \
  "add %[sum], %[t1]\n\t"                            \
  "smlal %[low], %[high], %[t1], %[t1]\n\t"
#endif

/* The sum of `cols` numbers; *squares: of their squares. */
TVMT_INLINE int32_t tvmt_norm_sums(const int32_t *t, int32_t cols, int64_t *squares) {
  const int32_t *end = t + cols;
  int32_t sum = 0;
  int64_t total = 0;
#if TVMT_DSP
  const int32_t *fours = t + (cols & ~3);
  uint32_t low = 0, high = 0;
  int32_t t0, t1;
  if (t != fours) {
    /* Eight at a time; entered in the middle when four are left over. */
    __asm__ volatile(
        "sub %[t0], %[end], %[t]\n\t"
        "tst %[t0], #16\n\t"
        "bne 2f\n"
        "1:\n\t" TVMT_NORM_SUM_TWO TVMT_NORM_SUM_TWO
        "2:\n\t" TVMT_NORM_SUM_TWO TVMT_NORM_SUM_TWO
        "cmp %[t], %[end]\n\t"
        "bne 1b"
        : [t] "+&r"(t), [sum] "+&r"(sum), [low] "+&r"(low), [high] "+&r"(high), [t0] "=&r"(t0), [t1] "=&r"(t1)
        : [end] "r"(fours)
        : "cc", "memory");
    total = (int64_t)((uint64_t)low | (uint64_t)high << 32);
  }
#endif
  for (; t != end; t++) {
    sum += *t;
    total += (int64_t)*t * *t;
  }
  *squares = total;
  return sum;
}

/* y = clamp8((multiply_high(n, gamma) + beta) >> 8), n = multiply_high((scale * t - offset) >> down, multiplier). */
TVMT_INLINE int8_t tvmt_norm_element(int32_t t, int32_t gamma, int32_t beta, uint32_t scale, uint32_t offset,
                                     int32_t down, int32_t multiplier) {
  const int32_t centred = (int32_t)(scale * (uint32_t)t - offset) >> down;
  const int32_t normalized = tvmt_multiply_high(centred, multiplier);
  return tvmt_shift_saturate_s8(tvmt_multiply_high_add(beta, normalized, gamma));
}

#if TVMT_DSP

/* The same for whole groups of four up to t == end, with down = 0 and `offset` negated: it takes all registers. Eight
 * at a time; entered in the middle when four are left over. */
TVMT_ASSEMBLY TVMT_CODE_SECTION void tvmt_norm_fours(const int32_t *t, const int32_t *gamma,
                                                                   const int32_t *beta, int8_t *y, uint32_t scale,
                                                                   uint32_t minus_offset, int32_t multiplier,
                                                                   const int32_t *end) {
  TVMT_IN_ASSEMBLY((void)t, (void)gamma, (void)beta, (void)y, (void)scale, (void)minus_offset, (void)multiplier,
                   (void)end)
#define TVMT_NORM_TWO                      \
  "ldrd r8, r9, [r0], #8\n\t"              \
  "ldrd r10, r11, [r1], #8\n\t"            \
  "mla r8, r8, r4, r5\n\t"                 \
  "mla r9, r9, r4, r5\n\t"                 \
  "ldrd r12, lr, [r2], #8\n\t"             \
  "smmulr r8, r8, r6\n\t"                  \
  "smmulr r9, r9, r6\n\t"                  \
  "smmlar r8, r8, r10, r12\n\t"            \
  "smmlar r9, r9, r11, lr\n\t"             \
  "ssat r8, #8, r8, asr #8\n\t"            \
  "ssat r9, #8, r9, asr #8\n\t"            \
  "strb r8, [r3], #1\n\t"                  \
  "strb r9, [r3], #1\n\t"
  __asm__(
      "push {r4-r11, lr}\n\t"
      "add r4, sp, #36\n\t"
      "ldm r4, {r4-r7}\n\t"
      "sub r8, r7, r0\n\t"
      "tst r8, #16\n\t"
      "bne 2f\n"
      "1:\n\t" TVMT_NORM_TWO TVMT_NORM_TWO
      "2:\n\t" TVMT_NORM_TWO TVMT_NORM_TWO
      "cmp r0, r7\n\t"
      "bne 1b\n\t"
      "pop {r4-r11, pc}\n");
#undef TVMT_NORM_TWO
}

#endif

/* The elements of a row, as tvmt_norm_element. */
TVMT_INLINE void tvmt_norm_row(const int32_t *t, const int32_t *gamma, const int32_t *beta, int8_t *y, int32_t cols,
                               uint32_t scale, uint32_t offset, int32_t down, int32_t multiplier) {
  int32_t j = 0;
#if TVMT_DSP
  /* Rows whose values need bits of their own below the rate's are rare. */
  if (down == 0 && cols > 3) {
    j = cols & ~3;
    tvmt_norm_fours(t, gamma, beta, y, scale, 0U - offset, multiplier, t + j);
  }
#endif
  for (; j < cols; j++) {
    y[j] = tvmt_norm_element(t[j], gamma[j], beta[j], scale, offset, down, multiplier);
  }
}

#endif
