/* Canonical Huffman codes of bytes (tvmtiny/storage/huffman.py): the decoder that whole arrays and rows share.
 *
 * A code is its symbols in the order of their code words, and how many words there are of each length. Words of up to
 * TVMT_HUFFMAN_FIRST bits are found in a table, which is made anew for each call in memory of the caller; longer ones,
 * which are rare, bit by bit. Whatever the arrays hold, nothing outside of them is read or written: what is wrong gives
 * wrong values.
 */
#ifndef TVMT_HUFFMAN_H
#define TVMT_HUFFMAN_H

#include "tvmt_platform.h"

#define TVMT_HUFFMAN_LIMIT 12 /* bits of the longest word */
#define TVMT_HUFFMAN_FIRST 8
#define TVMT_HUFFMAN_BEHIND 3
#define TVMT_HUFFMAN_ENTRIES 256
#define TVMT_HUFFMAN_TABLE (TVMT_HUFFMAN_ENTRIES + 2) /* elements of a table, with the two values behind it */

typedef struct {
  const uint8_t *data; /* bits, from the highest of each byte on; the last word ends at least TVMT_HUFFMAN_BEHIND bytes
                          before the end */
  int32_t bytes;       /* at least 4 */
  const uint8_t *symbols;
  int32_t n_symbols;
  const uint8_t *lengths; /* words of 1 to TVMT_HUFFMAN_LIMIT bits */
  uint16_t *table;        /* by the next 8 bits: length << 8 | symbol, 0 where the word is longer; then how many
                             entries are not 0, and how many symbols they have */
} tvmt_huffman;

/* The bits from `bit` on, the next one highest: 25 at least. */
TVMT_INLINE uint32_t tvmt_huffman_window(const uint8_t *data, uint32_t last, uint32_t bit) {
  const uint8_t *at = data + (bit >> 3 < last ? bit >> 3 : last);
  return ((uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3]) << (bit & 7u);
}

TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_huffman_begin(const tvmt_huffman *code) {
  int32_t entry = 0, symbol = 0;
  for (int32_t length = 1; length <= TVMT_HUFFMAN_FIRST; length++) {
    for (int32_t i = code->lengths[length - 1]; i > 0; i--) {
      const int32_t end = entry + (1 << (TVMT_HUFFMAN_FIRST - length));
      if (end > TVMT_HUFFMAN_ENTRIES || symbol >= code->n_symbols) break;
      const uint16_t value = (uint16_t)(length << 8 | code->symbols[symbol++]);
      while (entry < end) code->table[entry++] = value;
    }
  }
  code->table[TVMT_HUFFMAN_ENTRIES] = (uint16_t)entry;
  code->table[TVMT_HUFFMAN_ENTRIES + 1] = (uint16_t)symbol;
  while (entry < TVMT_HUFFMAN_ENTRIES) code->table[entry++] = 0;
}

/* length << 8 | symbol of a word that is not in the table. */
TVMT_FUNCTION TVMT_CODE_SECTION uint32_t tvmt_huffman_long(const tvmt_huffman *code, uint32_t window) {
  int32_t place = (int32_t)(window >> 24) - code->table[TVMT_HUFFMAN_ENTRIES]; /* among the words of its length */
  int32_t symbol = code->table[TVMT_HUFFMAN_ENTRIES + 1];
  for (int32_t length = TVMT_HUFFMAN_FIRST + 1; length <= TVMT_HUFFMAN_LIMIT; length++) {
    const int32_t count = code->lengths[length - 1];
    place = 2 * place + (int32_t)(window >> (32 - length) & 1u);
    if (place < count) {
      return (uint32_t)length << 8 | (symbol + place < code->n_symbols ? code->symbols[symbol + place] : 0u);
    }
    place -= count;
    symbol += count;
  }
  return TVMT_HUFFMAN_LIMIT << 8;
}

TVMT_INLINE uint32_t tvmt_huffman_entry(const uint16_t *table, uint32_t window) {
  return table[window >> (32 - TVMT_HUFFMAN_FIRST)];
}

/* The `count` bytes from `bit` on; returns the bit behind them. Three words of up to 8 bits lie in one window. */
TVMT_FUNCTION TVMT_CODE_SECTION uint32_t tvmt_huffman_decode(const tvmt_huffman *code, uint32_t bit, uint8_t *out,
                                                             int32_t count) {
  const uint16_t *const table = code->table;
  const uint8_t *const data = code->data;
  const uint32_t last = (uint32_t)code->bytes - 4u;
  while (count > 0) {
    uint32_t window = tvmt_huffman_window(data, last, bit);
    uint32_t first = tvmt_huffman_entry(table, window);
    if (first == 0u) {
      first = tvmt_huffman_long(code, window);
    } else if (count > 2) {
      window <<= first >> 8;
      const uint32_t second = tvmt_huffman_entry(table, window);
      window <<= second >> 8;
      const uint32_t third = tvmt_huffman_entry(table, window);
      if (second != 0u && third != 0u) {
        bit += (first >> 8) + (second >> 8) + (third >> 8);
        out[0] = (uint8_t)first;
        out[1] = (uint8_t)second;
        out[2] = (uint8_t)third;
        out += 3;
        count -= 3;
        continue;
      }
    }
    *out++ = (uint8_t)first;
    bit += first >> 8;
    count--;
  }
  return bit;
}

#endif
