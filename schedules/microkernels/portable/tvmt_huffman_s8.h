/* An array of bytes in a Huffman code. */
#ifndef TVMT_HUFFMAN_S8_H
#define TVMT_HUFFMAN_S8_H

#include "tvmt_huffman.h"

/* The first `count` bytes of `data`, of `words` 16-bit words. symbols, lengths: the code (tvmt_huffman.h).
 * table: TVMT_HUFFMAN_TABLE elements of work memory.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_huffman_s8(const uint16_t *data, const uint8_t *symbols,
                                                     const uint8_t *lengths, void *out, uint16_t *table,
                                                     int32_t words, int32_t n_symbols, int32_t count) {
  const tvmt_huffman code = {data, words, symbols, n_symbols, lengths, table};
  tvmt_bits bits = tvmt_bits_at(&code, 0u);
  tvmt_huffman_begin(&code);
  tvmt_huffman_decode(&bits, &code, (uint8_t *)out, count);
}

#endif
