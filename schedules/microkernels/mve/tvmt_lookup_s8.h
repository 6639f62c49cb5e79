/* Any function of one int8 value (GELU, tanh, sigmoid) as a table of 256 entries. */
#ifndef TVMT_LOOKUP_S8_H
#define TVMT_LOOKUP_S8_H

#include "tvmt_vectors.h"

/* x[i * x_stride + j] = table[x[i * x_stride + j] + 128], in place.
 *
 * table: 256 int8. x_stride in elements. x + 128 is x with its sign bit turned over, read as unsigned.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_lookup_s8(int8_t *x, const int8_t *table, int32_t rows, int32_t cols,
                                                    int32_t x_stride) {
  for (int32_t i = 0; i < rows; i++) {
    int8_t *y = x + i * x_stride;
#if TVMT_MVE
    __asm__ volatile(
        "dlstp.8 lr, %[cols]\n"
        "1:\n\t"
        "vldrb.u8 q0, [%[y]]\n\t"
        "veor q0, q0, %q[sign]\n\t"
        "vldrb.u8 q1, [%[table], q0]\n\t"
        "vstrb.8 q1, [%[y]], #16\n\t"
        "letp lr, 1b"
        : [y] "+&r"(y)
        : [cols] "r"(cols), [table] "r"(table), [sign] "w"(vdupq_n_u8(0x80))
        : "q0", "q1", "lr", "memory");
#else
    for (int32_t j = 0; j < cols; j++) {
      y[j] = table[y[j] + 128];
    }
#endif
  }
}

#endif
