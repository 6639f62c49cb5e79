/* libFuzzer target for the tokenizers of fuzzed.h, which lists them as FUZZED: the C alone, fed with anything.
 *
 * The first byte of an input chooses the tokenizer, the second the capacity, the third the length of the parts. State,
 * work memory and ids lie in blocks of just their size, so that AddressSanitizer sees every byte beyond.
 */
#include <stdlib.h>

#include "fuzzed.h"

typedef struct {
  const tvmt_tokenizer_tables *tables;
  size_t work;         /* 16-bit units */
  uint32_t vocabulary; /* ids are below */
} fuzzed_tokenizer;

static const fuzzed_tokenizer fuzzed[] = {FUZZED};

static void check(const fuzzed_tokenizer *chosen, const uint16_t *ids, int32_t count, int32_t capacity) {
  if (count > capacity || count > (int32_t)chosen->tables->max_tokens) {
    abort();
  }
  for (int32_t i = 0; i < count; i++) {
    if (ids[i] >= chosen->vocabulary) {
      abort();
    }
  }
}

static void tokenize(const fuzzed_tokenizer *chosen, int32_t capacity, size_t part, const uint8_t *text, size_t size) {
  tvmt_tokenizer *state = malloc(sizeof *state);
  uint16_t *work = malloc(2u * chosen->work);
  uint16_t *ids = malloc(2u * (size_t)capacity + 1u);
  if (tvmt_tokenizer_init(state, chosen->tables, work, ids, capacity) == TVMT_TOKENIZER_OK) {
    for (size_t at = 0; at < size; at += part) {
      (void)tvmt_tokenizer_feed(state, text + at, size - at < part ? size - at : part);
    }
    check(chosen, ids, tvmt_tokenizer_finish(state), capacity);
  }
  free(ids);
  free(work);
  free(state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size >= 3u) {
    const fuzzed_tokenizer *chosen = &fuzzed[data[0] % (sizeof fuzzed / sizeof fuzzed[0])];
    tokenize(chosen, data[1], 1u + data[2], data + 3, size - 3u);
  }
  return 0;
}
