/* Rows of a table with few distinct values, by their numbers. */
#ifndef TVMT_UNPACK_ROWS_S8_H
#define TVMT_UNPACK_ROWS_S8_H

#include "tvmt_unpack_s8.h"

/* out[r * cols + c] = value c of row ids[r].
 *
 * data: rows of `row_bytes` bytes each, as tvmt_unpack_s8 takes them. codebook, bits: likewise.
 */
TVMT_INLINE void tvmt_unpack_rows_s8(const uint16_t *ids, const uint8_t *data, const int8_t *codebook, int8_t *out,
                                     int32_t rows, int32_t cols, int32_t row_bytes, int32_t bits) {
  for (int32_t r = 0; r < rows; r++) {
    tvmt_unpack_s8(data + ids[r] * row_bytes, codebook, out + r * cols, cols, bits);
  }
}

#endif
