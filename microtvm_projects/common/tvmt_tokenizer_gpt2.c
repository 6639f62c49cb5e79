/* The words of GPT-2 (Radford et al., 2019), of which its program says
 *
 *   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *
 * as a state machine that waits for at most two characters: the last of a row of spaces belongs to the word behind it,
 * and an apostrophe at the beginning of a word may be a contraction.
 */
#include "tvmt_tokenizer.h"

enum {
  BETWEEN = 0,
  SPACES,  /* the last one is pending */
  LETTERS,
  NUMBERS,
  OTHERS,
  QUOTE,   /* an apostrophe that begins a word */
  QUOTE_R, /* and a letter behind it, pending, that begins 're, 've or 'll */
  QUOTE_V,
  QUOTE_L
};

static void take(tvmt_tokenizer *state, uint32_t code_point) {
  state->tables->model->character(state, code_point);
}

static void end_word(tvmt_tokenizer *state) {
  state->tables->model->end_word(state);
  state->split = BETWEEN;
}

static uint8_t state_in(uint8_t character_class) {
  return character_class == TVMT_LETTER ? LETTERS : character_class == TVMT_NUMBER ? NUMBERS : OTHERS;
}

/* After an apostrophe; returns 1 when the character is dealt with. */
static int contract(tvmt_tokenizer *state, uint32_t c) {
  if (c == 's' || c == 't' || c == 'm' || c == 'd') {
    take(state, c);
    end_word(state);
    return 1;
  }
  if (c == 'r' || c == 'v' || c == 'l') {
    state->pending = c;
    state->split = c == 'r' ? QUOTE_R : c == 'v' ? QUOTE_V : QUOTE_L;
    return 1;
  }
  state->split = OTHERS;
  return 0;
}

/* After an apostrophe and r, v or l; returns 1 when the character is dealt with. */
static int contract_two(tvmt_tokenizer *state, uint32_t c) {
  const uint32_t letter = state->pending;
  const int complete = c == (state->split == QUOTE_L ? (uint32_t)'l' : (uint32_t)'e');
  if (!complete) {
    end_word(state);
  }
  take(state, letter);
  if (complete) {
    take(state, c);
    end_word(state);
  } else {
    state->split = LETTERS;
  }
  return complete;
}

static void space(tvmt_tokenizer *state, uint32_t c) {
  if (state->split == SPACES) {
    take(state, state->pending);
  } else if (state->split != BETWEEN) {
    end_word(state);
  }
  state->pending = c;
  state->split = SPACES;
}

/* Something else follows spaces: a blank joins it. */
static void end_spaces(tvmt_tokenizer *state, uint8_t next) {
  end_word(state);
  take(state, state->pending);
  if (state->pending == ' ') {
    state->split = next;
  } else {
    end_word(state);
  }
}

static void character(tvmt_tokenizer *state, uint32_t c, uint8_t character_class) {
  if (state->split == QUOTE && contract(state, c)) {
    return;
  }
  if (state->split >= QUOTE_R && contract_two(state, c)) {
    return;
  }
  if (character_class == TVMT_SPACE) {
    space(state, c);
    return;
  }
  const uint8_t next = state_in(character_class);
  if (state->split == SPACES) {
    end_spaces(state, next);
  } else if (state->split != BETWEEN && state->split != next) {
    end_word(state);
  }
  if (state->split == BETWEEN) {
    state->split = c == '\'' ? (uint8_t)QUOTE : next;
  }
  take(state, c);
}

static void end(tvmt_tokenizer *state) {
  if (state->split >= QUOTE_R) {
    end_word(state);
    take(state, state->pending);
  } else if (state->split == SPACES) {
    take(state, state->pending);
  }
  end_word(state);
}

const tvmt_splitter tvmt_split_gpt2 = {character, end};
