/* Rows of a table in a Huffman code, by their numbers. */
#ifndef TVMT_HUFFMAN_ROWS_S8_H
#define TVMT_HUFFMAN_ROWS_S8_H

#include "tvmt_huffman.h"

#define TVMT_HUFFMAN_GROUP 4 /* rows for which there is one entry of `starts`: those before a row are decoded, too */

/* out[r * cols + c] = byte c of row ids[r].
 *
 * starts: the first bit of every TVMT_HUFFMAN_GROUP-th row. The others as in tvmt_huffman_s8.h.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_huffman_rows_s8(const uint16_t *ids, const uint32_t *starts,
                                                          const uint8_t *data, const uint8_t *symbols,
                                                          const uint8_t *lengths, void *out, uint16_t *table,
                                                          int32_t rows, int32_t cols, int32_t bytes,
                                                          int32_t n_symbols) {
  const tvmt_huffman code = {data, bytes, symbols, n_symbols, lengths, table};
  tvmt_huffman_begin(&code);
  for (int32_t r = 0; r < rows; r++) {
    uint32_t bit = starts[ids[r] / TVMT_HUFFMAN_GROUP];
    for (int32_t before = ids[r] % TVMT_HUFFMAN_GROUP; before >= 0; before--) {
      bit = tvmt_huffman_decode(&code, bit, (uint8_t *)out + r * cols, cols);
    }
  }
}

#endif
