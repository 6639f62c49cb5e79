/* Adds rows of a second embedding table, such as that of token types, to a sum in int32. */
#ifndef TVMT_ADD_EMBEDDING_S32_H
#define TVMT_ADD_EMBEDDING_S32_H

#include "tvmt_vectors.h"

/* t[i * t_stride + j] += table[ids[i] * cols + j] * factor, in place on t.
 *
 * ids: [rows], each below the number of rows of table (the caller has checked). The result must fit 32 bits. cols >= 1.
 * t_stride in elements.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_add_embedding_s32(int32_t *t, const uint16_t *ids, const int8_t *table,
                                                            int32_t rows, int32_t cols, int32_t t_stride,
                                                            int32_t factor) {
  for (int32_t i = 0; i < rows; i++) {
    const int8_t *row = table + (int32_t)ids[i] * cols;
    int32_t *sum = t + i * t_stride;
#if TVMT_MVE
    __asm__ volatile(
        "dlstp.32 lr, %[cols]\n"
        "1:\n\t"
        "vldrb.s32 q0, [%[row]], #4\n\t"
        "vldrw.u32 q1, [%[sum]]\n\t"
        "vmla.s32 q1, q0, %[factor]\n\t"
        "vstrw.32 q1, [%[sum]], #16\n\t"
        "letp lr, 1b"
        : [row] "+l"(row), [sum] "+r"(sum)
        : [cols] "r"(cols), [factor] "r"(factor)
        : "q0", "q1", "lr", "memory");
#else
    for (int32_t j = 0; j < cols; j++) {
      sum[j] = tvmt_add(sum[j], row[j] * factor);
    }
#endif
  }
}

#endif
