/* Token and position embeddings, added in int32. */
#ifndef TVMT_EMBED_S32_H
#define TVMT_EMBED_S32_H

#include "tvmt_vectors.h"

/* out[i * out_stride + j] = token_table[ids[i] * cols + j] * token_factor
 *                           + position_table[(first_row + i) * cols + j] * position_factor.
 *
 * ids: [rows], each below the number of rows of token_table (the caller has checked). first_row: position of row 0.
 * The result must fit 32 bits. out_stride in elements.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_embed_s32(const uint16_t *ids, const int8_t *token_table,
                                                    const int8_t *position_table, int32_t *out, int32_t rows,
                                                    int32_t cols, int32_t first_row, int32_t out_stride,
                                                    int32_t token_factor, int32_t position_factor) {
  for (int32_t i = 0; i < rows; i++) {
    const int8_t *token = token_table + (int32_t)ids[i] * cols;
    const int8_t *position = position_table + (first_row + i) * cols;
    int32_t *y = out + i * out_stride;
#if TVMT_MVE
    __asm__ volatile(
        "dlstp.32 lr, %[cols]\n"
        "1:\n\t"
        "vldrb.s32 q0, [%[token]], #4\n\t"
        "vmul.i32 q0, q0, %[token_factor]\n\t"
        "vldrb.s32 q1, [%[position]], #4\n\t"
        "vmla.s32 q0, q1, %[position_factor]\n\t"
        "vstrw.32 q0, [%[y]], #16\n\t"
        "letp lr, 1b"
        : [token] "+&l"(token), [position] "+&l"(position), [y] "+&r"(y)
        : [cols] "r"(cols), [token_factor] "r"(token_factor), [position_factor] "r"(position_factor)
        : "q0", "q1", "lr", "memory");
#else
    for (int32_t j = 0; j < cols; j++) {
      y[j] = tvmt_add(token[j] * token_factor, position[j] * position_factor);
    }
#endif
  }
}

#endif
