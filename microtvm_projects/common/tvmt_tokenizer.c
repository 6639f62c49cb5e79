/* From bytes to classified code points, and the frame of a text. */
#include "tvmt_tokenizer.h"

#include <string.h>

#define REPLACEMENT 0xfffdu
#define POOL_LAST 0x80000000u
#define POOL_TARGET 0x8000u
#define HANGUL_TARGET 0xffffu

enum { AT_START = 0, AFTER_REMOVED = 1, WITHIN = 2 };

/* Bounded: a binary search among groups, then at most 16 runs. */
static uint8_t classify(const tvmt_characters *table, uint32_t code_point, uint32_t *target) {
  uint32_t low = 0, high = table->n_groups;
  while (high - low > 1u) {
    const uint32_t middle = (low + high) / 2u;
    if (table->group_start[middle] <= code_point) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const uint8_t *run = table->runs + table->group_offset[low];
  uint32_t start = table->group_start[low];
  for (;;) {
    const uint8_t character_class = (uint8_t)(*run >> 5);
    uint32_t length = (*run++ & 31u) + 1u;
    if (length == 32u) {
      length += run[0] | (uint32_t)run[1] << 8;
      run += 2;
    }
    if (character_class == TVMT_MAP) {
      *target = run[0] | (uint32_t)run[1] << 8;
      run += 2;
    }
    if (code_point - start < length) {
      return character_class;
    }
    start += length;
  }
}

/* The class of a code point that normalization has given: it is not normalized again. */
static uint8_t class_of_result(const tvmt_characters *table, uint32_t code_point) {
  uint32_t unused = 0;
  const uint8_t found = code_point < 128u ? table->ascii[code_point] : classify(table, code_point, &unused);
  return found == TVMT_MAP || found == TVMT_LOWER || found == TVMT_DROP ? (uint8_t)TVMT_KEEP : found;
}

static int wants_prefix(const tvmt_tokenizer *state, uint32_t first) {
  const tvmt_tokenizer_tables *tables = state->tables;
  switch (tables->prefix_when) {
    case TVMT_PREFIX_ALWAYS:
      return 1;
    case TVMT_PREFIX_UNLESS_THERE:
      return first != tables->prefix;
    case TVMT_PREFIX_FIRST_UNLESS_THERE:
      return first != tables->prefix && state->segment == AT_START;
    default:
      return 0;
  }
}

/* A code point after normalization. */
static void put(tvmt_tokenizer *state, uint32_t code_point, uint8_t character_class) {
  const tvmt_tokenizer_tables *tables = state->tables;
  if (state->segment != WITHIN) {
    if (wants_prefix(state, code_point)) {
      tables->splitter->character(state, tables->prefix, class_of_result(&tables->characters, tables->prefix));
    }
    state->segment = WITHIN;
  }
  tables->splitter->character(state, code_point, character_class);
}

static void put_result(tvmt_tokenizer *state, uint32_t code_point) {
  put(state, code_point, class_of_result(&state->tables->characters, code_point));
}

static void put_sequence(tvmt_tokenizer *state, const uint32_t *sequence) {
  while ((*sequence & POOL_LAST) == 0u) {
    put_result(state, *sequence++);
  }
  put_result(state, *sequence & ~POOL_LAST);
}

/* Conjoining jamo of a Hangul syllable (Unicode 15.0, section 3.12). */
static void put_jamo(tvmt_tokenizer *state, uint32_t syllable) {
  const uint32_t index = syllable - 0xac00u;
  put_result(state, 0x1100u + index / 588u);
  put_result(state, 0x1161u + index % 588u / 28u);
  if (index % 28u != 0u) {
    put_result(state, 0x11a7u + index % 28u);
  }
}

static void put_mapped(tvmt_tokenizer *state, uint32_t code_point, uint32_t target) {
  if (target == HANGUL_TARGET) {
    put_jamo(state, code_point);
  } else if (target >= POOL_TARGET) {
    put_sequence(state, state->tables->characters.pool + (target - POOL_TARGET));
  } else {
    put_result(state, target);
  }
}

static void normalize(tvmt_tokenizer *state, uint32_t code_point) {
  const tvmt_characters *table = &state->tables->characters;
  uint32_t target = 0;
  uint8_t found = code_point < 128u ? table->ascii[code_point] : (uint8_t)TVMT_MAP;
  if (found == TVMT_MAP) {
    found = classify(table, code_point, &target);
  }
  if (found == TVMT_MAP) {
    put_mapped(state, code_point, target);
  } else if (found == TVMT_LOWER) {
    put_result(state, code_point + 32u);
  } else if (found != TVMT_DROP) {
    put(state, code_point, found);
  } else if (state->segment == AT_START) {
    state->segment = AFTER_REMOVED;
  }
}

static void begin_sequence(tvmt_tokenizer *state, uint8_t byte) {
  state->utf8_lower = byte == 0xe0u ? 0xa0u : byte == 0xf0u ? 0x90u : 0x80u;
  state->utf8_upper = byte == 0xedu ? 0x9fu : byte == 0xf4u ? 0x8fu : 0xbfu;
  if (byte < 0x80u) {
    normalize(state, byte);
  } else if (byte >= 0xc2u && byte <= 0xdfu) {
    state->utf8_missing = 1;
    state->code_point = byte & 0x1fu;
  } else if (byte >= 0xe0u && byte <= 0xefu) {
    state->utf8_missing = 2;
    state->code_point = byte & 0x0fu;
  } else if (byte >= 0xf0u && byte <= 0xf4u) {
    state->utf8_missing = 3;
    state->code_point = byte & 0x07u;
  } else {
    normalize(state, REPLACEMENT);
  }
}

static void end_sequence(tvmt_tokenizer *state) {
  if (state->utf8_missing != 0u) {
    state->utf8_missing = 0;
    normalize(state, REPLACEMENT);
  }
}

/* One U+FFFD for each longest part of an ill-formed sequence (Unicode 15.0, section 3.9, table 3-8). */
static void decode(tvmt_tokenizer *state, uint8_t byte) {
  if (state->utf8_missing != 0u && byte >= state->utf8_lower && byte <= state->utf8_upper) {
    state->utf8_lower = 0x80u;
    state->utf8_upper = 0xbfu;
    state->code_point = state->code_point << 6 | (byte & 0x3fu);
    if (--state->utf8_missing == 0u) {
      normalize(state, state->code_point);
    }
    return;
  }
  end_sequence(state);
  begin_sequence(state, byte);
}

static void end_segment(tvmt_tokenizer *state) {
  end_sequence(state);
  state->tables->splitter->end(state);
}

/* The longest special token at the start of `held`; *longer: whether more bytes could make a longer one. */
static const tvmt_special_token *find_special(const tvmt_tokenizer *state, int *longer) {
  const tvmt_special_token *best = NULL;
  *longer = 0;
  for (uint32_t i = 0; i < state->tables->n_specials; i++) {
    const tvmt_special_token *token = &state->tables->specials[i];
    const uint8_t common = token->bytes < state->held_bytes ? token->bytes : state->held_bytes;
    if (memcmp(token->text, state->held, common) != 0) {
      continue;
    }
    if (token->bytes > state->held_bytes) {
      *longer = 1;
    } else if (best == NULL || token->bytes > best->bytes) {
      best = token;
    }
  }
  return best;
}

static void release(tvmt_tokenizer *state, uint8_t bytes) {
  state->held_bytes = (uint8_t)(state->held_bytes - bytes);
  memmove(state->held, state->held + bytes, state->held_bytes);
}

/* Pass on what is held, but for the start of a possible special token if more is to come. */
static void resolve(tvmt_tokenizer *state, int more_to_come) {
  while (state->held_bytes != 0u) {
    int longer = 0;
    const tvmt_special_token *token = find_special(state, &longer);
    if (longer != 0 && more_to_come != 0) {
      return;
    }
    if (token != NULL) {
      end_segment(state);
      state->segment = AFTER_REMOVED;
      tvmt_emit(state, token->id);
      release(state, token->bytes);
    } else {
      decode(state, state->held[0]);
      release(state, 1);
    }
  }
}

static int may_begin_special(const tvmt_tokenizer *state, uint8_t byte) {
  for (const char *first = state->tables->special_first; *first != '\0'; first++) {
    if ((uint8_t)*first == byte) {
      return 1;
    }
  }
  return 0;
}

int tvmt_tokenizer_init(tvmt_tokenizer *state, const tvmt_tokenizer_tables *tables, uint16_t *work, uint16_t *ids,
                        int32_t capacity) {
  if (state == NULL || tables == NULL || work == NULL || ids == NULL) {
    return TVMT_TOKENIZER_ERROR_NULL;
  }
  memset(state, 0, sizeof *state);
  state->tables = tables;
  state->ids = ids;
  state->held = (uint8_t *)work;
  state->work = work + (tables->special_bytes + 1u) / 2u;
  const int32_t kept = capacity < (int32_t)tables->max_tokens ? capacity : (int32_t)tables->max_tokens;
  if (kept < (int32_t)tables->n_before + (int32_t)tables->n_after) {
    state->status = TVMT_TOKENIZER_ERROR_CAPACITY;
    return state->status;
  }
  state->limit = (uint32_t)kept - tables->n_after;
  for (uint32_t i = 0; i < tables->n_before; i++) {
    tvmt_emit(state, tables->around[i]);
  }
  return TVMT_TOKENIZER_OK;
}

int tvmt_tokenizer_feed(tvmt_tokenizer *state, const void *bytes, size_t count) {
  if (state == NULL || (bytes == NULL && count != 0u)) {
    return TVMT_TOKENIZER_ERROR_NULL;
  }
  const uint8_t *next = (const uint8_t *)bytes;
  for (size_t i = 0; i < count && state->status == TVMT_TOKENIZER_OK; i++) {
    if (state->held_bytes == 0u && !may_begin_special(state, next[i])) {
      decode(state, next[i]);
    } else {
      state->held[state->held_bytes++] = next[i];
      resolve(state, 1);
    }
  }
  return state->status;
}

int32_t tvmt_tokenizer_finish(tvmt_tokenizer *state) {
  if (state == NULL) {
    return TVMT_TOKENIZER_ERROR_NULL;
  }
  if (state->status == TVMT_TOKENIZER_OK) {
    resolve(state, 0);
    end_segment(state);
  }
  if (state->status != TVMT_TOKENIZER_OK) {
    return state->status;
  }
  const tvmt_tokenizer_tables *tables = state->tables;
  const uint32_t kept = state->count < state->limit ? state->count : state->limit;
  for (uint32_t i = 0; i < tables->n_after; i++) {
    state->ids[kept + i] = tables->around[tables->n_before + i];
  }
  return (int32_t)(kept + tables->n_after);
}
