/* Four int32 sums at a time to clamped results of 8 or 16 bits, one multiplier for the tensor. */
#ifndef TVMT_REQUANTIZE_FOURS_H
#define TVMT_REQUANTIZE_FOURS_H

#include "tvmt_arith.h"

/* TVMT_REQUANTIZE_FOURS(row, fours, y, bits, store, bytes, multiplier, shift, zero_point)
 *
 * Results of the sums from `row` to `fours`, a multiple of four further on (maybe none), to `y`; advances both. `bits`
 * and `bytes` of a result, and `store`, the instruction that stores one, are strings: they stand in the instructions.
 */
#define TVMT_REQUANTIZE_FOURS(row, fours, y, bits, store, bytes, multiplier, shift, zero_point)                       \
  do {                                                                                                                \
    int32_t t0, t1, t2, t3;                                                                                           \
    if ((row) != (fours)) {                                                                                           \
      __asm__ volatile(                                                                                               \
          "1:\n\t"                                                                                                    \
          "ldrd %[t0], %[t1], [%[row_]], #8\n\t"                                                                      \
          "ldrd %[t2], %[t3], [%[row_]], #8\n\t"                                                                      \
          "lsl %[t0], %[shift_]\n\t"                                                                                  \
          "lsl %[t1], %[shift_]\n\t"                                                                                  \
          "lsl %[t2], %[shift_]\n\t"                                                                                  \
          "lsl %[t3], %[shift_]\n\t"                                                                                  \
          "smmlar %[t0], %[t0], %[multiplier_], %[zero_point_]\n\t"                                                   \
          "smmlar %[t1], %[t1], %[multiplier_], %[zero_point_]\n\t"                                                   \
          "smmlar %[t2], %[t2], %[multiplier_], %[zero_point_]\n\t"                                                   \
          "smmlar %[t3], %[t3], %[multiplier_], %[zero_point_]\n\t"                                                   \
          "ssat %[t0], #" bits ", %[t0]\n\t"                                                                          \
          "ssat %[t1], #" bits ", %[t1]\n\t"                                                                          \
          "ssat %[t2], #" bits ", %[t2]\n\t"                                                                          \
          "ssat %[t3], #" bits ", %[t3]\n\t"                                                                          \
          "cmp %[row_], %[fours_]\n\t"                                                                                \
          store " %[t0], [%[y_]], #" bytes "\n\t"                                                                     \
          store " %[t1], [%[y_]], #" bytes "\n\t"                                                                     \
          store " %[t2], [%[y_]], #" bytes "\n\t"                                                                     \
          store " %[t3], [%[y_]], #" bytes "\n\t"                                                                     \
          "bne 1b"                                                                                                    \
          : [row_] "+r"(row), [y_] "+r"(y), [t0] "=&r"(t0), [t1] "=&r"(t1), [t2] "=&r"(t2), [t3] "=&r"(t3)            \
          : [fours_] "r"(fours), [shift_] "r"(shift), [multiplier_] "r"(multiplier), [zero_point_] "r"(zero_point)    \
          : "cc", "memory");                                                                                          \
    }                                                                                                                 \
  } while (0)

#endif
