/* From the sums of a chunk to the elements of the result, four columns at a time.
 *
 * VRMULH is multiply_high: the high word of the product, rounded to nearest, halves up. VQMOVN clamps to int16 and then
 * to int8; a byte store takes the lowest byte of each word, and a low register as address ("l"). The loops predicate
 * their last columns (LETP).
 *
 * acc: the sums of a row in the first tile; rows: the rows of a tile. A tile of one row takes 16 bytes, of two 32.
 */
#ifndef TVMT_FINISH_H
#define TVMT_FINISH_H

#include "tvmt_products.h"
#include "tvmt_vectors.h"

/* How the sums of a column or row become elements: clamp8(multiply_high((acc + add) << shift, multiplier) + zero). */
typedef struct {
  int32_t shift, zero_point;
} tvmt_rounding;

#if TVMT_MVE
#define TVMT_FINISH_COLUMNS_S8(TILE)                                                        \
  __asm__ volatile(                                                                         \
      "dlstp.32 lr, lr\n"                                                                   \
      "1:\n\t"                                                                              \
      "vldrw.u32 q0, [%[acc]], " TILE "\n\t"                                                \
      "vldrw.u32 q1, [%[bias]], #16\n\t"                                                    \
      "vadd.i32 q0, q0, q1\n\t"                                                             \
      "vldrw.u32 q1, [%[multiplier]], #16\n\t"                                              \
      "vshl.s32 q0, %[shift]\n\t"                                                           \
      "vrmulh.s32 q0, q0, q1\n\t"                                                           \
      "vadd.i32 q0, q0, %[zero_point]\n\t" TVMT_CLAMP_S8("q0")                              \
      "vstrb.32 q0, [%[out], %q[offsets]]\n\t"                                              \
      "add %[out], %[step]\n\t"                                                             \
      "letp lr, 1b"                                                                         \
      : [acc] "+r"(acc), [bias] "+r"(bias), [multiplier] "+r"(multiplier), [out] "+r"(out), \
        "+r"(count)                                                                         \
      : [offsets] "w"(offsets), [step] "r"(step),                                           \
        [shift] "r"(rounding.shift), [zero_point] "r"(rounding.zero_point)                  \
      : "q0", "q1", "memory")
#endif

/* One row whose columns have a bias and a multiplier each. */
TVMT_INLINE void tvmt_finish_columns_s8(const int32_t *acc, int32_t rows, const int32_t *bias,
                                        const int32_t *multiplier, int8_t *out, int32_t col_stride, int32_t cols,
                                        tvmt_rounding rounding) {
#if TVMT_MVE
  const uint32x4_t offsets = vmulq_n_u32(vidupq_n_u32(0, 1), (uint32_t)col_stride);
  const int32_t step = TVMT_TILE_COLUMNS * col_stride;
  register int32_t count __asm__("lr") = cols; /* all other registers are taken where a frame pointer is one of them */
  if (rows == 2) {
    TVMT_FINISH_COLUMNS_S8("#32");
  } else {
    TVMT_FINISH_COLUMNS_S8("#16");
  }
#else
  for (int32_t j = 0; j < cols; j++) {
    const int32_t sum = acc[j / TVMT_TILE_COLUMNS * TVMT_TILE_COLUMNS * rows + j % TVMT_TILE_COLUMNS];
    out[j * col_stride] =
        tvmt_requantize_s8(tvmt_add(sum, bias[j]), multiplier[j], rounding.shift, rounding.zero_point);
  }
#endif
}

/* The same for two rows whose columns are one after the other, with shift 0, the common one. */
TVMT_INLINE void tvmt_finish_columns_2_s8(const int32_t *acc, const int32_t *bias, const int32_t *multiplier,
                                          int8_t *out, int32_t row_stride, int32_t cols, int32_t zero_point) {
#if TVMT_MVE
  int8_t *other = out + row_stride;
  __asm__ volatile(
      "dlstp.32 lr, %[cols]\n"
      "1:\n\t"
      "vldrw.u32 q2, [%[bias]], #16\n\t"
      "vldrw.u32 q0, [%[acc]], #16\n\t"
      "vldrw.u32 q1, [%[acc]], #16\n\t"
      "vadd.i32 q0, q0, q2\n\t"
      "vadd.i32 q1, q1, q2\n\t"
      "vldrw.u32 q2, [%[multiplier]], #16\n\t"
      "vrmulh.s32 q0, q0, q2\n\t"
      "vadd.i32 q0, q0, %[zero_point]\n\t"
      "vrmulh.s32 q1, q1, q2\n\t" TVMT_CLAMP_S8("q0")
      "vadd.i32 q1, q1, %[zero_point]\n\t"
      "vstrb.32 q0, [%[out]], #4\n\t" TVMT_CLAMP_S8("q1")
      "vstrb.32 q1, [%[other]], #4\n\t"
      "letp lr, 1b"
      : [acc] "+r"(acc), [bias] "+r"(bias), [multiplier] "+r"(multiplier), [out] "+l"(out), [other] "+l"(other)
      : [cols] "r"(cols), [zero_point] "r"(zero_point)
      : "q0", "q1", "q2", "lr", "memory");
#else
  const tvmt_rounding rounding = {0, zero_point};
  for (int32_t i = 0; i < 2; i++) {
    tvmt_finish_columns_s8(acc + i * TVMT_TILE_COLUMNS, 2, bias, multiplier, out + i * row_stride, 1, cols, rounding);
  }
#endif
}

#if TVMT_MVE
#define TVMT_FINISH_ROW_S8(TILE)                                           \
  __asm__ volatile(                                                        \
      "dlstp.32 lr, %[cols]\n"                                             \
      "1:\n\t"                                                             \
      "vldrw.u32 q0, [%[acc]], " TILE "\n\t"                               \
      "vadd.i32 q0, q0, %[addend]\n\t"                                     \
      "vshl.s32 q0, %[shift]\n\t"                                          \
      "vrmulh.s32 q0, q0, %q[factor]\n\t"                                  \
      "vadd.i32 q0, q0, %[zero_point]\n\t" TVMT_CLAMP_S8("q0")             \
      "vstrb.32 q0, [%[out]], #4\n\t"                                      \
      "letp lr, 1b"                                                        \
      : [acc] "+r"(acc), [out] "+l"(out)                                   \
      : [cols] "r"(cols), [addend] "r"(add), [factor] "w"(factor),         \
        [shift] "r"(rounding.shift), [zero_point] "r"(rounding.zero_point) \
      : "q0", "lr", "memory")
#endif

/* One row that has a multiplier of its own, and a number to add to its sums. */
TVMT_INLINE void tvmt_finish_row_s8(const int32_t *acc, int32_t rows, int32_t add, int32_t multiplier, int8_t *out,
                                    int32_t cols, tvmt_rounding rounding) {
#if TVMT_MVE
  const int32x4_t factor = vdupq_n_s32(multiplier);
  if (rows == 2) {
    TVMT_FINISH_ROW_S8("#32");
  } else {
    TVMT_FINISH_ROW_S8("#16");
  }
#else
  for (int32_t j = 0; j < cols; j++) {
    const int32_t sum = acc[j / TVMT_TILE_COLUMNS * TVMT_TILE_COLUMNS * rows + j % TVMT_TILE_COLUMNS];
    out[j] = tvmt_requantize_s8(tvmt_add(sum, add), multiplier, rounding.shift, rounding.zero_point);
  }
#endif
}

#if TVMT_MVE
#define TVMT_FINISH_COLUMNS_S32(TILE)                                                      \
  __asm__ volatile(                                                                        \
      "dlstp.32 lr, %[cols]\n"                                                             \
      "1:\n\t"                                                                             \
      "vldrw.u32 q0, [%[acc]], " TILE "\n\t"                                               \
      "vldrw.u32 q1, [%[bias]], #16\n\t"                                                   \
      "vadd.i32 q0, q0, q1\n\t"                                                            \
      "vldrw.u32 q1, [%[multiplier]], #16\n\t"                                             \
      "vshl.s32 q0, %[shift]\n\t"                                                          \
      "vrmulh.s32 q0, q0, q1\n\t"                                                          \
      "vstrw.32 q0, [%[out]], #16\n\t"                                                     \
      "letp lr, 1b"                                                                        \
      : [acc] "+r"(acc), [bias] "+r"(bias), [multiplier] "+r"(multiplier), [out] "+l"(out) \
      : [cols] "r"(cols), [shift] "r"(shift)                                               \
      : "q0", "q1", "lr", "memory")
#endif

/* One row of a dense layer whose result stays int32: multiply_high((acc + bias) << shift, multiplier). */
TVMT_INLINE void tvmt_finish_columns_s32(const int32_t *acc, int32_t rows, const int32_t *bias,
                                         const int32_t *multiplier, int32_t *out, int32_t cols, int32_t shift) {
#if TVMT_MVE
  if (rows == 2) {
    TVMT_FINISH_COLUMNS_S32("#32");
  } else {
    TVMT_FINISH_COLUMNS_S32("#16");
  }
#else
  for (int32_t j = 0; j < cols; j++) {
    const int32_t sum = acc[j / TVMT_TILE_COLUMNS * TVMT_TILE_COLUMNS * rows + j % TVMT_TILE_COLUMNS];
    out[j] = tvmt_multiply_high(tvmt_shift_left(tvmt_add(sum, bias[j]), shift), multiplier[j]);
  }
#endif
}

#if TVMT_MVE
#define TVMT_FINISH_S32(TILE)                \
  __asm__ volatile(                          \
      "dlstp.32 lr, %[cols]\n"               \
      "1:\n\t"                               \
      "vldrw.u32 q0, [%[acc]], " TILE "\n\t" \
      "vstrw.32 q0, [%[out]], #16\n\t"       \
      "letp lr, 1b"                          \
      : [acc] "+r"(acc), [out] "+l"(out)     \
      : [cols] "r"(cols)                     \
      : "q0", "lr", "memory")
#endif

/* One row of sums as they are. */
TVMT_INLINE void tvmt_finish_s32(const int32_t *acc, int32_t rows, int32_t *out, int32_t cols) {
#if TVMT_MVE
  if (rows == 2) {
    TVMT_FINISH_S32("#32");
  } else {
    TVMT_FINISH_S32("#16");
  }
#else
  for (int32_t j = 0; j < cols; j++) {
    out[j] = acc[j / TVMT_TILE_COLUMNS * TVMT_TILE_COLUMNS * rows + j % TVMT_TILE_COLUMNS];
  }
#endif
}

#endif
