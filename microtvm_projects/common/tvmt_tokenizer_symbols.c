/* Symbols of byte-pair encoding: characters, or bytes. Without merges they are the tokens. */
#include "tvmt_tokenizer.h"

static uint16_t find_character(const tvmt_merges *table, uint32_t code_point) {
  uint32_t low = 0, high = table->n_characters;
  while (low < high) {
    const uint32_t middle = (low + high) / 2u;
    if (table->characters[middle] == code_point) {
      return table->character_ids[middle];
    }
    if (table->characters[middle] < code_point) {
      low = middle + 1u;
    } else {
      high = middle;
    }
  }
  return TVMT_NO_SYMBOL;
}

static void take_known(tvmt_tokenizer *state, uint16_t symbol, void (*take)(tvmt_tokenizer *, uint16_t)) {
  const tvmt_merges *table = state->tables->merges;
  const uint8_t unknown = symbol == TVMT_NO_SYMBOL;
  if (!unknown) {
    take(state, symbol);
  } else if (table->unknown != TVMT_NO_SYMBOL && !(state->unknown && table->fuse_unknown)) {
    take(state, table->unknown);
  }
  state->unknown = unknown;
}

void tvmt_each_symbol(tvmt_tokenizer *state, uint32_t code_point, void (*take)(tvmt_tokenizer *, uint16_t)) {
  const tvmt_merges *table = state->tables->merges;
  const uint16_t symbol = find_character(table, code_point);
  if (symbol != TVMT_NO_SYMBOL || table->byte_ids == NULL) {
    take_known(state, symbol, take);
    return;
  }
  uint8_t utf8[4];
  const uint32_t count = tvmt_utf8(code_point, utf8);
  for (uint32_t i = 0; i < count; i++) {
    take_known(state, table->byte_ids[utf8[i]], take);
  }
}

static void emit(tvmt_tokenizer *state, uint16_t symbol) { tvmt_emit(state, symbol); }

static void character(tvmt_tokenizer *state, uint32_t code_point) { tvmt_each_symbol(state, code_point, emit); }

static void end_word(tvmt_tokenizer *state) { state->unknown = 0; }

const tvmt_token_model tvmt_symbols = {character, end_word};
