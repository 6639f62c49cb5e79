/* Tokenization on the device: UTF-8 text in, token ids out, the ids that the `tokenizers` library gives.
 *
 * Text is fed as it comes, in pieces of any length, also in the middle of a character. Each byte is worked on once:
 *
 *   bytes -> special tokens -> code points -> normalization -> splitter (words) -> model (ids)
 *
 * Invalid UTF-8 becomes U+FFFD as Python's bytes.decode("utf-8", "replace") has it. Everything that depends on the
 * vocabulary lies in constant tables that `tvmtiny tokenizer export` writes; they name the splitter and the model,
 * so that a kind of tokenizer which no table names is not linked. The caller owns all memory: no malloc, no recursion,
 * no writable globals. C11 and C++.
 */
#ifndef TVMT_TOKENIZER_H
#define TVMT_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum tvmt_tokenizer_status {
  TVMT_TOKENIZER_OK = 0,
  TVMT_TOKENIZER_ERROR_NULL = -1,     /* a pointer is null */
  TVMT_TOKENIZER_ERROR_CAPACITY = -2, /* there is not even room for the tokens around every text */
  TVMT_TOKENIZER_ERROR_WORD = -3      /* byte-pair encoding: a word of which no first token can be told within the
                                         work memory; export with a larger --word-symbols */
};

/* What becomes of a code point; normalization and splitting in one. */
enum tvmt_character_class {
  TVMT_KEEP = 0,     /* itself, part of a word */
  TVMT_DROP = 1,     /* removed */
  TVMT_SPACE = 2,    /* between words */
  TVMT_ISOLATED = 3, /* a word by itself */
  TVMT_MAP = 4,      /* other code points in its place */
  TVMT_LETTER = 5,
  TVMT_NUMBER = 6,
  TVMT_LOWER = 7 /* the code point 32 above */
};

/* Classes of all code points, as runs: 16 runs make a group, and a search among groups finds where to begin.
 * A run is a byte, class << 5 | (length - 1); 31 there means that two bytes follow, low byte first, with length - 32.
 * Then for TVMT_MAP two more: below 0x8000 the one code point to take; else 0x8000 + its place in `pool`; 0xffff: the
 * conjoining jamo of a Hangul syllable. */
typedef struct {
  const uint8_t *ascii;         /* [128] class of each code point below 128 */
  const uint32_t *group_start;  /* [n_groups] first code point, ascending, the first is 0 */
  const uint16_t *group_offset; /* [n_groups] where its runs begin */
  const uint8_t *runs;
  const uint32_t *pool; /* code points; bit 31 marks the last of a sequence */
  uint32_t n_groups;
} tvmt_characters;

typedef struct {
  const char *text; /* without a final zero */
  uint16_t id;
  uint8_t bytes;
} tvmt_special_token;

/* 16 nodes of a trie. */
typedef struct {
  uint32_t first_child; /* the first child of the first node */
  uint16_t first_id;    /* entries of `ids` before these nodes */
  uint16_t terminal;    /* bit i: a piece ends at node i */
} tvmt_trie_block;

/* Pieces by their bytes, in breadth-first order: siblings lie together, by label. Node 0 begins words, node 1 goes on
 * inside them. */
typedef struct {
  const uint8_t *label;         /* [nodes] the byte that leads to a node */
  const uint8_t *children;      /* [nodes] how many a node has */
  const tvmt_trie_block *block; /* [(nodes + 15) / 16] */
  const uint16_t *ids;          /* of the nodes at which a piece ends, in order */
  uint32_t max_characters;      /* a longer word is unknown */
  uint16_t unknown;             /* id */
} tvmt_trie;

#define TVMT_NO_SYMBOL 0xffffu

/* Initial symbols and merges of byte-pair encoding. */
typedef struct {
  const uint32_t *characters;    /* [n_characters] that are symbols, ascending */
  const uint16_t *character_ids; /* [n_characters] their ids */
  const uint16_t *byte_ids;      /* [256] symbols of the bytes of any other character, or NULL: it is unknown */
  const uint16_t *merge_first;   /* [n_symbols + 1] where the merges of a left symbol begin */
  const uint16_t *merge_right;   /* right symbol, ascending for each left one */
  const uint16_t *merge_rank;    /* of the pair; the lowest is merged first */
  const uint16_t *merged;        /* [ranks] the symbol that a merge gives */
  uint32_t n_characters;
  uint32_t n_symbols;    /* symbols from here on begin no merge */
  uint32_t word_symbols; /* most symbols of a word that work memory holds, 2 to 255 */
  uint32_t longest;      /* most initial symbols of a token */
  uint16_t unknown;      /* id, or TVMT_NO_SYMBOL: what is unknown is left out */
  uint8_t fuse_unknown;  /* 1: unknown characters in a row are one token */
} tvmt_merges;

#define TVMT_NO_MARK UINT32_MAX

struct tvmt_tokenizer;

/* Finds words; `end` comes at the end of the text and before a special token. */
typedef struct {
  void (*character)(struct tvmt_tokenizer *state, uint32_t code_point, uint8_t character_class);
  void (*end)(struct tvmt_tokenizer *state);
} tvmt_splitter;

/* Turns the characters of a word into ids. */
typedef struct {
  void (*character)(struct tvmt_tokenizer *state, uint32_t code_point);
  void (*end_word)(struct tvmt_tokenizer *state);
} tvmt_token_model;

extern const tvmt_splitter tvmt_split_words; /* at TVMT_SPACE, around TVMT_ISOLATED, and where the class changes */
extern const tvmt_splitter tvmt_split_gpt2;  /* the pattern of GPT-2 */
extern const tvmt_splitter tvmt_split_marks; /* before each `word_mark`; nowhere if that is TVMT_NO_MARK */
extern const tvmt_token_model tvmt_wordpiece;
extern const tvmt_token_model tvmt_bpe;
extern const tvmt_token_model tvmt_symbols; /* byte-pair encoding without merges: bytes, characters */

/* When a text gets a character before its first. */
enum tvmt_prefix {
  TVMT_PREFIX_NEVER = 0,
  TVMT_PREFIX_ALWAYS = 1,
  TVMT_PREFIX_UNLESS_THERE = 2,      /* unless it begins with that character */
  TVMT_PREFIX_FIRST_UNLESS_THERE = 3 /* likewise, and not after a special token */
};

typedef struct {
  tvmt_characters characters;
  const tvmt_splitter *splitter;
  const tvmt_token_model *model;
  const tvmt_trie *trie;                /* of tvmt_wordpiece, else NULL */
  const tvmt_merges *merges;            /* of tvmt_bpe and tvmt_symbols, else NULL */
  const tvmt_special_token *specials;   /* found in texts before anything else, the longest at a place */
  const char *special_first;            /* the bytes that they begin with, each once, zero-terminated */
  const uint16_t *around;               /* n_before ids, then n_after ids: before and after every text */
  uint32_t word_mark;                   /* of tvmt_split_marks */
  uint32_t prefix;                      /* code point */
  uint16_t max_tokens;                  /* what is beyond is cut off */
  uint8_t n_specials, n_before, n_after;
  uint8_t prefix_when;   /* enum tvmt_prefix */
  uint8_t special_bytes; /* of the longest special token */
} tvmt_tokenizer_tables;

/* One text on its way; contents are private. Its work memory: special_bytes, rounded up to even, then those of the
 * model. The exported header has a type of the right size. */
typedef struct tvmt_tokenizer {
  const tvmt_tokenizer_tables *tables;
  uint16_t *ids;
  uint8_t *held;        /* bytes that may become a special token */
  uint16_t *work;       /* the model's */
  uint32_t count;       /* tokens so far, also those that are cut off */
  uint32_t limit;       /* tokens that are kept, without those after the text */
  int32_t status;
  uint32_t code_point;  /* UTF-8: bits so far */
  uint32_t pending;     /* splitter: a character that waits for the next */
  uint32_t node;        /* WordPiece: where in the trie */
  uint32_t word_start;  /* WordPiece: tokens before the word */
  uint32_t word_length; /* characters, or symbols, of the word so far */
  uint16_t matched_id;  /* WordPiece: of the longest piece so far */
  uint8_t utf8_missing, utf8_lower, utf8_upper; /* bytes that are missing, and the range of the next */
  uint8_t held_bytes;
  uint8_t segment;      /* 0: at the start of the text, 1: after a special token or what was removed, 2: within */
  uint8_t split;        /* splitter: state */
  uint8_t piece_bytes, piece_walked, piece_matched; /* WordPiece: bytes in work, of these in the trie, in a piece */
  uint8_t unknown;      /* WordPiece: no piece fits the word; byte-pair encoding: the last symbol was unknown */
} tvmt_tokenizer;

/* Begin a text.
 *   work      work memory of the tables, aligned to 2 bytes; it must outlive the text
 *   ids       where the tokens go
 *   capacity  entries of ids
 * Returns TVMT_TOKENIZER_OK or a negative status. */
int tvmt_tokenizer_init(tvmt_tokenizer *state, const tvmt_tokenizer_tables *tables, uint16_t *work, uint16_t *ids,
                        int32_t capacity);

/* The next bytes of the text; returns the status so far. */
int tvmt_tokenizer_feed(tvmt_tokenizer *state, const void *bytes, size_t count);

/* End the text; returns the number of tokens in `ids`, or a negative status. */
int32_t tvmt_tokenizer_finish(tvmt_tokenizer *state);

/* Whether the text had more tokens than are kept. */
static inline int tvmt_tokenizer_truncated(const tvmt_tokenizer *state) { return state->count > state->limit; }

/* For models: the next token. */
static inline void tvmt_emit(tvmt_tokenizer *state, uint16_t id) {
  if (state->count < state->limit) {
    state->ids[state->count] = id;
  }
  if (state->count != UINT32_MAX) {
    state->count++;
  }
}

/* For models of symbols: calls `take` with each symbol of a code point. */
void tvmt_each_symbol(tvmt_tokenizer *state, uint32_t code_point, void (*take)(tvmt_tokenizer *state, uint16_t symbol));

/* For models: the UTF-8 of a code point; returns the number of bytes. */
static inline uint32_t tvmt_utf8(uint32_t code_point, uint8_t bytes[4]) {
  if (code_point < 0x80u) {
    bytes[0] = (uint8_t)code_point;
    return 1u;
  }
  const uint32_t count = code_point < 0x800u ? 2u : code_point < 0x10000u ? 3u : 4u;
  for (uint32_t i = count - 1u; i > 0u; i--) {
    bytes[i] = (uint8_t)(0x80u | (code_point & 0x3fu));
    code_point >>= 6;
  }
  bytes[0] = (uint8_t)((0xf00u >> count) | code_point);
  return count;
}

#ifdef __cplusplus
}
#endif

#endif
