/* WordPiece: the longest piece that fits, then the longest that fits behind it (Schuster and Nakajima, 2012).
 *
 * Pieces go out as soon as no longer one can fit; when the word turns out to be unknown they are taken back and one
 * unknown token stands for it. So only the bytes since the last piece are kept, at most the longest piece and one.
 * Time: a byte that a piece did not cover is walked again from the next piece: with L bytes in the longest piece at
 * most L + 1 steps in the trie for each byte of a text on average, (L + 1) (L + 2) / 2 for any one byte.
 */
#include <string.h>

#include "tvmt_tokenizer.h"

#define INSIDE 1u

static uint32_t first_child(const tvmt_trie *trie, uint32_t node) {
  uint32_t child = trie->block[node / 16u].first_child;
  for (uint32_t before = node & ~15u; before < node; before++) {
    child += trie->children[before];
  }
  return child;
}

/* The child of `node` by `byte`, or 0. */
static uint32_t find_child(const tvmt_trie *trie, uint32_t node, uint8_t byte) {
  uint32_t low = first_child(trie, node);
  uint32_t high = low + trie->children[node];
  while (low < high) {
    const uint32_t middle = (low + high) / 2u;
    if (trie->label[middle] == byte) {
      return middle;
    }
    if (trie->label[middle] < byte) {
      low = middle + 1u;
    } else {
      high = middle;
    }
  }
  return 0;
}

static void note_piece(tvmt_tokenizer *state) {
  const tvmt_trie *trie = state->tables->trie;
  const tvmt_trie_block *block = &trie->block[state->node / 16u];
  const uint32_t bit = state->node & 15u;
  if ((block->terminal >> bit & 1u) == 0u) {
    return;
  }
  uint32_t index = block->first_id;
  for (uint32_t before = block->terminal & ((1u << bit) - 1u); before != 0u; before &= before - 1u) {
    index++;
  }
  state->matched_id = trie->ids[index];
  state->piece_matched = state->piece_walked;
}

static void end_piece(tvmt_tokenizer *state) {
  uint8_t *bytes = (uint8_t *)state->work;
  if (state->piece_matched == 0u) {
    state->unknown = 1;
    state->piece_bytes = 0;
  } else {
    tvmt_emit(state, state->matched_id);
    state->piece_bytes = (uint8_t)(state->piece_bytes - state->piece_matched);
    memmove(bytes, bytes + state->piece_matched, state->piece_bytes);
  }
  state->node = INSIDE;
  state->piece_walked = 0;
  state->piece_matched = 0;
}

static void walk(tvmt_tokenizer *state) {
  const uint8_t *bytes = (const uint8_t *)state->work;
  while (state->piece_walked < state->piece_bytes) {
    const uint32_t child = find_child(state->tables->trie, state->node, bytes[state->piece_walked]);
    if (child == 0u) {
      end_piece(state);
    } else {
      state->node = child;
      state->piece_walked++;
      note_piece(state);
    }
  }
}

static void character(tvmt_tokenizer *state, uint32_t code_point) {
  uint8_t utf8[4];
  if (state->word_length == 0u) {
    state->word_start = state->count;
  }
  if (state->word_length == state->tables->trie->max_characters) {
    state->unknown = 1;
  }
  if (state->unknown != 0u) {
    return;
  }
  state->word_length++;
  const uint32_t count = tvmt_utf8(code_point, utf8);
  for (uint32_t i = 0; i < count && state->unknown == 0u; i++) {
    ((uint8_t *)state->work)[state->piece_bytes++] = utf8[i];
    walk(state);
  }
}

static void end_word(tvmt_tokenizer *state) {
  while (state->unknown == 0u && state->piece_bytes != 0u) {
    end_piece(state);
    walk(state);
  }
  if (state->unknown != 0u) {
    state->count = state->word_start;
    tvmt_emit(state, state->tables->trie->unknown);
  }
  state->unknown = 0;
  state->word_length = 0;
  state->node = 0;
  state->piece_bytes = 0;
  state->piece_walked = 0;
  state->piece_matched = 0;
}

const tvmt_token_model tvmt_wordpiece = {character, end_word};
