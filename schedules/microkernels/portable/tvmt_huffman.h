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
#define TVMT_HUFFMAN_ENTRIES 256
#define TVMT_HUFFMAN_TABLE (TVMT_HUFFMAN_ENTRIES + 2) /* elements of a table, with the two values behind it */

typedef struct {
  const uint16_t *data; /* bits, the first of a word in its highest bit */
  int32_t words;
  const uint8_t *symbols;
  int32_t n_symbols;
  const uint8_t *lengths; /* words of 1 to TVMT_HUFFMAN_LIMIT bits */
  uint16_t *table;        /* by the next 8 bits: length << 8 | symbol, 0 where the word is longer; then how many
                             entries are not 0, and how many symbols they have */
} tvmt_huffman;

/* A place in the bits. */
typedef struct {
  uint32_t window; /* the next bits, from the highest on */
  int32_t spare;   /* how many of them there are, less 16 */
  int32_t word;
} tvmt_bits;

TVMT_INLINE void tvmt_bits_fill(tvmt_bits *bits, const tvmt_huffman *code) {
  if (bits->spare < 0) {
    const uint32_t next = bits->word < code->words ? code->data[bits->word++] : 0u;
    bits->window |= next << -bits->spare;
    bits->spare += 16;
  }
}

TVMT_INLINE tvmt_bits tvmt_bits_at(const tvmt_huffman *code, uint32_t bit) {
  const uint32_t words = (uint32_t)code->words;
  tvmt_bits bits = {0u, -16, (int32_t)(bit >> 4 < words ? bit >> 4 : words)};
  tvmt_bits_fill(&bits, code);
  bits.window <<= bit & 15u;
  bits.spare -= (int32_t)(bit & 15u);
  return bits;
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

TVMT_INLINE uint8_t tvmt_huffman_next(tvmt_bits *bits, const tvmt_huffman *code) {
  uint32_t entry = code->table[bits->window >> (32 - TVMT_HUFFMAN_FIRST)];
  if (entry == 0u) entry = tvmt_huffman_long(code, bits->window);
  bits->window <<= entry >> 8;
  bits->spare -= (int32_t)(entry >> 8);
  return (uint8_t)entry;
}

/* The next `count` bytes. */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_huffman_decode(tvmt_bits *place, const tvmt_huffman *code, uint8_t *out,
                                                         int32_t count) {
  const tvmt_huffman local = *code; /* in registers: a byte of `out` may be anything for all that C knows */
  tvmt_bits bits = *place;
  for (; count > 0; count--) {
    tvmt_bits_fill(&bits, &local);
    *out++ = tvmt_huffman_next(&bits, &local);
  }
  *place = bits;
}

#endif
