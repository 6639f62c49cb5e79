/* One row of a LayerNorm or RMSNorm: its sums, and its elements from their rate. */
#ifndef TVMT_NORM_ROW_H
#define TVMT_NORM_ROW_H

#include "tvmt_vectors.h"

/* The sum of `cols` numbers; *squares: of their squares. */
TVMT_INLINE int32_t tvmt_norm_sums(const int32_t *t, int32_t cols, int64_t *squares) {
  int32_t sum = 0;
  int64_t total = 0;
#if TVMT_MVE
  /* An even register and the next one: GCC 12 has no constraint for such a pair. */
  register uint32_t low __asm__("r2") = 0, high __asm__("r3") = 0;
  __asm__ volatile(
      "dlstp.32 lr, %[cols]\n"
      "1:\n\t"
      "vldrw.u32 q0, [%[t]], #16\n\t"
      "vmlaldava.s32 %[low], %[high], q0, q0\n\t"
      "vaddva.s32 %[sum], q0\n\t"
      "letp lr, 1b"
      : [t] "+&r"(t), [sum] "+&Te"(sum), [low] "+&r"(low), [high] "+&r"(high)
      : [cols] "r"(cols)
      : "q0", "lr", "memory");
  total = (int64_t)((uint64_t)low | (uint64_t)high << 32);
#else
  for (int32_t j = 0; j < cols; j++) {
    sum += t[j];
    total += (int64_t)t[j] * t[j];
  }
#endif
  *squares = total;
  return sum;
}

/* y = clamp8((multiply_high(n, gamma) + beta) >> 8), n = multiply_high((scale * t - offset) >> down, multiplier).
 *
 * Shift and clamp are apart because the assembler of binutils 2.40 encodes VQSHRNB, which does both, as VQRSHRNB. */
TVMT_INLINE void tvmt_norm_row(const int32_t *t, const int32_t *gamma, const int32_t *beta, int8_t *y, int32_t cols,
                               uint32_t scale, uint32_t offset, int32_t down, int32_t multiplier) {
#if TVMT_MVE
  __asm__ volatile(
      "dlstp.32 lr, %[cols]\n"
      "1:\n\t"
      "vldrw.u32 q0, [%[t]], #16\n\t"
      "vmlas.s32 q0, %q[scale], %[minus_offset]\n\t"
      "vldrw.u32 q1, [%[gamma]], #16\n\t"
      "vshl.s32 q0, %[minus_down]\n\t"
      "vrmulh.s32 q0, q0, %q[factor]\n\t"
      "vrmulh.s32 q0, q0, q1\n\t"
      "vldrw.u32 q1, [%[beta]], #16\n\t"
      "vadd.i32 q0, q0, q1\n\t"
      "vshr.s32 q0, q0, #8\n\t" TVMT_CLAMP_S8("q0")
      "vstrb.32 q0, [%[y]], #4\n\t"
      "letp lr, 1b"
      : [t] "+&r"(t), [gamma] "+&r"(gamma), [beta] "+&r"(beta), [y] "+&l"(y)
      : [cols] "r"(cols), [scale] "w"(vdupq_n_u32(scale)), [minus_offset] "r"(0U - offset), [minus_down] "r"(-down),
        [factor] "w"(vdupq_n_s32(multiplier))
      : "q0", "q1", "lr", "memory");
#else
  for (int32_t j = 0; j < cols; j++) {
    const int32_t centred = (int32_t)(scale * (uint32_t)t[j] - offset) >> down;
    const int32_t normalized = tvmt_multiply_high(centred, multiplier);
    y[j] = tvmt_shift_saturate_s8(tvmt_multiply_high_add(beta[j], normalized, gamma[j]));
  }
#endif
}

#endif
