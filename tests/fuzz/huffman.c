/* libFuzzer target for the decoder of Huffman codes: any code, any data.
 *
 * An input is: number of symbols less one, count of bytes to decode, first bit (two bytes), lengths of the code, symbols,
 * data. Everything lies in blocks of just its size, so that AddressSanitizer sees every byte beyond.
 */
#include <stdlib.h>

#include "tvmt_huffman_rows_s8.h"
#include "tvmt_huffman_s8.h"

#define HEAD 4u

static void *copy(const uint8_t *data, size_t size) {
  void *block = malloc(size);
  memcpy(block, data, size);
  return block;
}

static void decode(const uint8_t *input, const uint8_t *lengths, const uint8_t *symbols, int32_t n_symbols,
                   const uint8_t *data, int32_t bytes) {
  const int32_t count = input[1];
  uint16_t *table = malloc(TVMT_HUFFMAN_TABLE * sizeof *table);
  uint8_t *out = malloc((size_t)count + 1u);
  tvmt_huffman_s8(data, symbols, lengths, out, table, bytes, n_symbols, count);
  const uint16_t ids[1] = {(uint16_t)(input[0] % TVMT_HUFFMAN_GROUP)};
  const uint32_t starts[1] = {(uint32_t)input[2] << 8 | input[3]};
  tvmt_huffman_rows_s8(ids, starts, data, symbols, lengths, out, table, 1, count, bytes, n_symbols);
  free(out);
  free(table);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
  const size_t n_symbols = size > 0u ? input[0] + 1u : 1u, before = HEAD + TVMT_HUFFMAN_LIMIT + n_symbols;
  if (size < before + 4u) {
    return 0;
  }
  uint8_t *lengths = copy(input + HEAD, TVMT_HUFFMAN_LIMIT);
  uint8_t *symbols = copy(input + HEAD + TVMT_HUFFMAN_LIMIT, n_symbols);
  uint8_t *data = copy(input + before, size - before);
  decode(input, lengths, symbols, (int32_t)n_symbols, data, (int32_t)(size - before));
  free(data);
  free(symbols);
  free(lengths);
  return 0;
}
