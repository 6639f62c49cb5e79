/* From the sums of a chunk to the elements of the result, four columns at a time.
 *
 * VRMULH is multiply_high: the high word of the product, rounded to nearest, halves up. VQMOVN clamps to int16 and then
 * to int8; a byte store takes the lowest byte of each word, and a low register as address ("l"). The loops predicate
 * their last columns (LETP).
 */
#ifndef TVMT_FINISH_H
#define TVMT_FINISH_H

#include "tvmt_products.h"
#include "tvmt_vectors.h"

/* How a sum becomes an int8: clamp8(multiply_high(sum << shift, multiplier) + zero_point). */
typedef struct {
  int32_t shift, zero_point;
} tvmt_rounding;

/* One row whose columns have a bias and a multiplier each. */
TVMT_INLINE void tvmt_finish_columns_s8(const int32_t *acc, const int32_t *bias, const int32_t *multiplier,
                                        int8_t *out, int32_t col_stride, int32_t cols, tvmt_rounding rounding) {
#if TVMT_MVE
  const uint32x4_t offsets = vmulq_n_u32(vidupq_n_u32(0, 1), (uint32_t)col_stride);
  const int32_t step = TVMT_TILE_COLUMNS * col_stride;
  register int32_t count __asm__("lr") = cols; /* a frame pointer leaves no other register for it */
  __asm__ volatile(
      "dlstp.32 lr, lr\n"
      "1:\n\t"
      "vldrw.u32 q0, [%[acc]], #16\n\t"
      "vldrw.u32 q1, [%[bias]], #16\n\t"
      "vadd.i32 q0, q0, q1\n\t"
      "vldrw.u32 q1, [%[multiplier]], #16\n\t"
      "vshl.s32 q0, %[shift]\n\t"
      "vrmulh.s32 q0, q0, q1\n\t"
      "vadd.i32 q0, q0, %[zero_point]\n\t" TVMT_CLAMP_S8("q0")
      "vstrb.32 q0, [%[out], %q[offsets]]\n\t"
      "add %[out], %[step]\n\t"
      "letp lr, 1b"
      : [acc] "+&r"(acc), [bias] "+&r"(bias), [multiplier] "+&r"(multiplier), [out] "+&r"(out), "+&r"(count)
      : [offsets] "w"(offsets), [step] "r"(step), [shift] "r"(rounding.shift), [zero_point] "r"(rounding.zero_point)
      : "q0", "q1", "memory");
#else
  for (int32_t j = 0; j < cols; j++) {
    out[j * col_stride] =
        tvmt_requantize_s8(tvmt_add(acc[j], bias[j]), multiplier[j], rounding.shift, rounding.zero_point);
  }
#endif
}

/* The same for two rows whose columns are one after the other, with shift 0, the common one. */
TVMT_INLINE void tvmt_finish_columns_2_s8(const int32_t *acc, const int32_t *other, const int32_t *bias,
                                          const int32_t *multiplier, int8_t *out, int32_t row_stride, int32_t cols,
                                          int32_t zero_point) {
#if TVMT_MVE
  int8_t *below = out + row_stride;
  register int32_t count __asm__("lr") = cols;
  __asm__ volatile(
      "dlstp.32 lr, lr\n"
      "1:\n\t"
      "vldrw.u32 q2, [%[bias]], #16\n\t"
      "vldrw.u32 q0, [%[acc]], #16\n\t"
      "vldrw.u32 q1, [%[other]], #16\n\t"
      "vadd.i32 q0, q0, q2\n\t"
      "vadd.i32 q1, q1, q2\n\t"
      "vldrw.u32 q2, [%[multiplier]], #16\n\t"
      "vrmulh.s32 q0, q0, q2\n\t"
      "vadd.i32 q0, q0, %[zero_point]\n\t"
      "vrmulh.s32 q1, q1, q2\n\t" TVMT_CLAMP_S8("q0")
      "vadd.i32 q1, q1, %[zero_point]\n\t"
      "vstrb.32 q0, [%[out]], #4\n\t" TVMT_CLAMP_S8("q1")
      "vstrb.32 q1, [%[below]], #4\n\t"
      "letp lr, 1b"
      : [acc] "+&r"(acc), [other] "+&r"(other), [bias] "+&r"(bias), [multiplier] "+&r"(multiplier), [out] "+&l"(out),
        [below] "+&l"(below), "+&r"(count)
      : [zero_point] "r"(zero_point)
      : "q0", "q1", "q2", "memory");
#else
  const tvmt_rounding rounding = {0, zero_point};
  tvmt_finish_columns_s8(acc, bias, multiplier, out, 1, cols, rounding);
  tvmt_finish_columns_s8(other, bias, multiplier, out + row_stride, 1, cols, rounding);
#endif
}

/* One row that has a multiplier of its own, and a number to add to its sums. */
TVMT_INLINE void tvmt_finish_row_s8(const int32_t *acc, int32_t add, int32_t multiplier, int8_t *out, int32_t cols,
                                    tvmt_rounding rounding) {
#if TVMT_MVE
  __asm__ volatile(
      "dlstp.32 lr, %[cols]\n"
      "1:\n\t"
      "vldrw.u32 q0, [%[acc]], #16\n\t"
      "vadd.i32 q0, q0, %[addend]\n\t"
      "vshl.s32 q0, %[shift]\n\t"
      "vrmulh.s32 q0, q0, %q[factor]\n\t"
      "vadd.i32 q0, q0, %[zero_point]\n\t" TVMT_CLAMP_S8("q0")
      "vstrb.32 q0, [%[out]], #4\n\t"
      "letp lr, 1b"
      : [acc] "+&r"(acc), [out] "+&l"(out)
      : [cols] "r"(cols), [addend] "r"(add), [factor] "w"(vdupq_n_s32(multiplier)), [shift] "r"(rounding.shift),
        [zero_point] "r"(rounding.zero_point)
      : "q0", "lr", "memory");
#else
  for (int32_t j = 0; j < cols; j++) {
    out[j] = tvmt_requantize_s8(tvmt_add(acc[j], add), multiplier, rounding.shift, rounding.zero_point);
  }
#endif
}

/* One row of a dense layer whose result stays int32: multiply_high((acc + bias) << shift, multiplier); out may be acc. */
TVMT_INLINE void tvmt_finish_columns_s32(const int32_t *acc, const int32_t *bias, const int32_t *multiplier,
                                         int32_t *out, int32_t cols, int32_t shift) {
#if TVMT_MVE
  __asm__ volatile(
      "dlstp.32 lr, %[cols]\n"
      "1:\n\t"
      "vldrw.u32 q0, [%[acc]], #16\n\t"
      "vldrw.u32 q1, [%[bias]], #16\n\t"
      "vadd.i32 q0, q0, q1\n\t"
      "vldrw.u32 q1, [%[multiplier]], #16\n\t"
      "vshl.s32 q0, %[shift]\n\t"
      "vrmulh.s32 q0, q0, q1\n\t"
      "vstrw.32 q0, [%[out]], #16\n\t"
      "letp lr, 1b"
      : [acc] "+&r"(acc), [bias] "+&r"(bias), [multiplier] "+&r"(multiplier), [out] "+&r"(out)
      : [cols] "r"(cols), [shift] "r"(shift)
      : "q0", "q1", "lr", "memory");
#else
  for (int32_t j = 0; j < cols; j++) {
    out[j] = tvmt_multiply_high(tvmt_shift_left(tvmt_add(acc[j], bias[j]), shift), multiplier[j]);
  }
#endif
}

#endif
