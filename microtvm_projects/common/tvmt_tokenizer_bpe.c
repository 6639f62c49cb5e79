/* Byte-pair encoding (Sennrich et al., 2016): of all neighbours the pair of the lowest rank is joined, the first of
 * equals, until no pair has one.
 *
 * Symbols of a word are kept until its end. A word that is longer than the work memory is encoded piece by piece, and
 * exactly: a sequence of tokens is the encoding of a text if and only if each token, and each pair of neighbours, is
 * the encoding of its own text (merges on either side of a boundary that none crosses do not see each other). So a
 * beginning of the word's encoding that ends within the last `longest` symbols is the encoding of that part, and
 * tokens with which the encodings of all these parts begin are final. If there are none, the status says so.
 *
 * Time, with W = word_symbols: joining takes at most W passes over W symbols and 2 W searches among merges for a word;
 * a part of a longer word, `longest` times that.
 */
#include <string.h>

#include "tvmt_tokenizer.h"

#define NO_RANK 0xffffu
#define FINAL_TOKENS 16u /* the most that are found final at once */

/* The arrays in work memory. */
typedef struct {
  uint16_t *initial; /* [word_symbols] the word's symbols */
  uint16_t *token;   /* [word_symbols] joined */
  uint16_t *rank;    /* [word_symbols] of a token and its right neighbour */
  uint16_t *final;   /* [FINAL_TOKENS] */
  uint8_t *length;   /* [word_symbols] initial symbols of a token */
} word_memory;

static word_memory memory_of(const tvmt_tokenizer *state) {
  const uint32_t size = state->tables->merges->word_symbols;
  uint16_t *work = state->work;
  const word_memory memory = {work, work + size, work + 2u * size, work + 3u * size,
                              (uint8_t *)(work + 3u * size + FINAL_TOKENS)};
  return memory;
}

static uint16_t rank_of(const tvmt_merges *table, uint16_t left, uint16_t right) {
  if (left >= table->n_symbols) {
    return NO_RANK;
  }
  uint32_t low = table->merge_first[left], high = table->merge_first[left + 1u];
  while (low < high) {
    const uint32_t middle = (low + high) / 2u;
    if (table->merge_right[middle] == right) {
      return table->merge_rank[middle];
    }
    if (table->merge_right[middle] < right) {
      low = middle + 1u;
    } else {
      high = middle;
    }
  }
  return NO_RANK;
}

static void join(const tvmt_merges *table, const word_memory *memory, uint32_t at, uint32_t count) {
  const uint32_t behind = count - at - 2u;
  memory->token[at] = table->merged[memory->rank[at]];
  memory->length[at] = (uint8_t)(memory->length[at] + memory->length[at + 1u]);
  memmove(&memory->token[at + 1u], &memory->token[at + 2u], behind * sizeof(uint16_t));
  memmove(&memory->rank[at + 1u], &memory->rank[at + 2u], behind * sizeof(uint16_t));
  memmove(&memory->length[at + 1u], &memory->length[at + 2u], behind);
  if (at > 0u) {
    memory->rank[at - 1u] = rank_of(table, memory->token[at - 1u], memory->token[at]);
  }
  memory->rank[at] = behind > 0u ? rank_of(table, memory->token[at], memory->token[at + 1u]) : (uint16_t)NO_RANK;
}

/* Encode the first `count` >= 1 symbols of the word; returns the number of tokens. */
static uint32_t encode(const tvmt_merges *table, const word_memory *memory, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    memory->token[i] = memory->initial[i];
    memory->length[i] = 1;
    memory->rank[i] =
        i + 1u < count ? rank_of(table, memory->initial[i], memory->initial[i + 1u]) : (uint16_t)NO_RANK;
  }
  for (;;) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < count; i++) {
      if (memory->rank[i] < memory->rank[best]) {
        best = i;
      }
    }
    if (memory->rank[best] == NO_RANK) {
      return count;
    }
    join(table, memory, best, count);
    count--;
  }
}

static uint32_t common_tokens(const word_memory *memory, uint32_t most) {
  uint32_t count = 0;
  while (count < most && memory->final[count] == memory->token[count]) {
    count++;
  }
  return count;
}

static uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* Work memory is full: emit the tokens that are final whatever follows, and keep the rest. */
static void release(tvmt_tokenizer *state) {
  const tvmt_merges *table = state->tables->merges;
  const word_memory memory = memory_of(state);
  const uint32_t size = table->word_symbols;
  uint32_t count = smaller(encode(table, &memory, size), FINAL_TOKENS);
  memcpy(memory.final, memory.token, count * sizeof(uint16_t));
  for (uint32_t back = 1; back < table->longest && back < size; back++) {
    count = common_tokens(&memory, smaller(count, encode(table, &memory, size - back)));
  }
  uint32_t symbols = 0;
  for (uint32_t i = 0; i < count; i++) {
    tvmt_emit(state, memory.final[i]);
    symbols += memory.length[i];
  }
  if (count == 0u) {
    state->status = TVMT_TOKENIZER_ERROR_WORD;
  }
  state->word_length = size - symbols;
  memmove(memory.initial, memory.initial + symbols, state->word_length * sizeof(uint16_t));
}

static void append(tvmt_tokenizer *state, uint16_t symbol) {
  if (state->word_length == state->tables->merges->word_symbols) {
    if (state->count < state->limit) {
      release(state);
    } else {
      state->word_length = 0; /* all that follows is cut off */
      tvmt_emit(state, symbol);
    }
  }
  if (state->status == TVMT_TOKENIZER_OK) {
    state->work[state->word_length++] = symbol;
  }
}

static void character(tvmt_tokenizer *state, uint32_t code_point) { tvmt_each_symbol(state, code_point, append); }

static void end_word(tvmt_tokenizer *state) {
  const word_memory memory = memory_of(state);
  if (state->word_length != 0u && state->status == TVMT_TOKENIZER_OK) {
    const uint32_t count = encode(state->tables->merges, &memory, state->word_length);
    for (uint32_t i = 0; i < count; i++) {
      tvmt_emit(state, memory.token[i]);
    }
  }
  state->word_length = 0;
  state->unknown = 0;
}

const tvmt_token_model tvmt_bpe = {character, end_word};
