/* An array of bytes in a Huffman code. */
#ifndef TVMT_HUFFMAN_S8_H
#define TVMT_HUFFMAN_S8_H

#include "tvmt_huffman.h"

/* The first `count` bytes of the `bytes` of `data`. symbols, lengths: the code (tvmt_huffman.h).
 * table: TVMT_HUFFMAN_TABLE elements of work memory.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_huffman_s8(const uint8_t *data, const uint8_t *symbols,
                                                     const uint8_t *lengths, void *out, uint16_t *table,
                                                     int32_t bytes, int32_t n_symbols, int32_t count) {
  const tvmt_huffman code = {data, bytes, symbols, n_symbols, lengths, table};
  tvmt_huffman_begin(&code);
  (void)tvmt_huffman_decode(&code, 0u, (uint8_t *)out, count);
}

#endif
