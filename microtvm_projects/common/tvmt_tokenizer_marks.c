/* Words that begin with a mark, as SentencePiece has them (U+2581 in place of a space); without a mark, one word. */
#include "tvmt_tokenizer.h"

static void character(tvmt_tokenizer *state, uint32_t code_point, uint8_t character_class) {
  (void)character_class;
  if (code_point == state->tables->word_mark) {
    state->tables->model->end_word(state);
  }
  state->tables->model->character(state, code_point);
}

static void end(tvmt_tokenizer *state) { state->tables->model->end_word(state); }

const tvmt_splitter tvmt_split_marks = {character, end};
