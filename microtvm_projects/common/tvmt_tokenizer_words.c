/* Words between spaces, isolated characters, and runs of one class. */
#include "tvmt_tokenizer.h"

static void end_word(tvmt_tokenizer *state) {
  if (state->split != 0u) {
    state->split = 0;
    state->tables->model->end_word(state);
  }
}

/* `split` is 0 between words, else 1 + the class of the word's characters. */
static void character(tvmt_tokenizer *state, uint32_t code_point, uint8_t character_class) {
  if (character_class == TVMT_SPACE || character_class == TVMT_ISOLATED || state->split != character_class + 1u) {
    end_word(state);
  }
  if (character_class != TVMT_SPACE) {
    state->split = (uint8_t)(character_class + 1u);
    state->tables->model->character(state, code_point);
  }
}

const tvmt_splitter tvmt_split_words = {character, end_word};
