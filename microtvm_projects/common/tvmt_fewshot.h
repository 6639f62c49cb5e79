/* Few-shot classification on the device: examples are enrolled at run time, by their embeddings, and a new embedding
 * gets the label of the nearest example or of the nearest class mean. No training, no float, no malloc.
 *
 * C11 and C++. The store is one block of the caller's memory without pointers: seal it, and its first
 * tvmt_fewshot_saved_bytes may be copied to flash; copy them back and open it. Similarity is the cosine with 15
 * fractional bits, off by at most one of them; embeddings need not have length 1. Calls on one store must not overlap.
 *
 * Class means are those of unit vectors (Snell, Swersky, Zemel 2017, "Prototypical networks for few-shot learning", with
 * cosine). tvmtiny.fewshot is the Python twin and gives the same bytes.
 */
#ifndef TVMT_FEWSHOT_H
#define TVMT_FEWSHOT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "tvmt_norm_rate.h"

#define TVMT_FEWSHOT_ONE 32768     /* similarity of equal directions */
#define TVMT_FEWSHOT_UNKNOWN (-1)  /* label of an answer that is none */
#define TVMT_FEWSHOT_MOST 1024     /* largest dimension and largest capacity */
#define TVMT_FEWSHOT_MAGIC UINT32_C(0x53465654) /* "TVFS" */
#define TVMT_FEWSHOT_VERSION 1

enum tvmt_fewshot_status {
  TVMT_FEWSHOT_OK = 0,
  TVMT_FEWSHOT_ERROR_SIZE = -1,   /* dimension, capacity or bytes out of range */
  TVMT_FEWSHOT_ERROR_FULL = -2,   /* no room for another example */
  TVMT_FEWSHOT_ERROR_LABEL = -3,  /* labels are 0 to 32767 */
  TVMT_FEWSHOT_ERROR_ZERO = -4,   /* an embedding without a direction: all zero */
  TVMT_FEWSHOT_ERROR_FORMAT = -5, /* no store, or one of another version, dimension or model */
  TVMT_FEWSHOT_ERROR_CRC = -6     /* a damaged store */
};

/* The head of a store. `count` examples follow; behind the last place for one, a place to work in. */
typedef struct {
  uint32_t magic;
  uint16_t version;
  uint16_t dimension; /* elements of an embedding, 1 to TVMT_FEWSHOT_MOST */
  uint16_t capacity;  /* examples that fit, 1 to TVMT_FEWSHOT_MOST */
  uint16_t count;     /* examples enrolled */
  uint32_t model;     /* whose embeddings these are: <NAME>_MODEL_ID */
  uint32_t crc;       /* of the other saved bytes (CRC-32 of IEEE 802.3); valid after tvmt_fewshot_seal */
} tvmt_fewshot;

/* An example. Its direction follows: `dimension` int8 values, padded with zeros to whole words. */
typedef struct {
  uint32_t rate; /* 2**30 / length of the values, rounded down */
  int16_t label;
  uint16_t reserved; /* 0 */
} tvmt_fewshot_example;

/* An output of a model: one of the two pointers is null. real = (value - zero_point) * any scale. */
typedef struct {
  const int8_t *s8;
  const int16_t *s16;
  int32_t zero_point;
} tvmt_fewshot_embedding;

/* How to choose, and when to say that nothing is near enough. */
typedef struct {
  int32_t by_mean;          /* 0: nearest example; else nearest class mean */
  int32_t least_similarity; /* below: unknown; -TVMT_FEWSHOT_ONE asks for nothing */
  int32_t least_margin;     /* nearer than this to another label: unknown; 0 asks for nothing */
} tvmt_fewshot_rule;

typedef struct {
  int32_t label;      /* of the nearest, or TVMT_FEWSHOT_UNKNOWN */
  int32_t nearest;    /* label of the nearest, near enough or not; TVMT_FEWSHOT_UNKNOWN in an empty store */
  int32_t similarity; /* of the nearest; -TVMT_FEWSHOT_ONE in an empty store */
  int32_t margin;     /* to the nearest of another label; 2 * TVMT_FEWSHOT_ONE where there is none */
} tvmt_fewshot_answer;

#define TVMT_FEWSHOT_EXAMPLE_BYTES(dimension) (8u + ((uint32_t)(dimension) + 3u) / 4u * 4u)

/* Bytes of a store: a constant expression for constant arguments. Align it to 4. */
#define TVMT_FEWSHOT_BYTES(capacity, dimension) \
  (20u + ((uint32_t)(capacity) + 1u) * TVMT_FEWSHOT_EXAMPLE_BYTES(dimension))

static inline tvmt_fewshot_embedding tvmt_fewshot_s8(const int8_t *values, int32_t zero_point) {
  const tvmt_fewshot_embedding embedding = {values, NULL, zero_point};
  return embedding;
}

static inline tvmt_fewshot_embedding tvmt_fewshot_s16(const int16_t *values, int32_t zero_point) {
  const tvmt_fewshot_embedding embedding = {NULL, values, zero_point};
  return embedding;
}

/* Bytes from the head to the last example: what is worth keeping. */
static inline uint32_t tvmt_fewshot_saved_bytes(const tvmt_fewshot *store) {
  return 20u + store->count * TVMT_FEWSHOT_EXAMPLE_BYTES(store->dimension);
}

static inline tvmt_fewshot_example *tvmt_fewshot_at(tvmt_fewshot *store, int32_t index) {
  uint8_t *first = (uint8_t *)store + sizeof *store;
  return (tvmt_fewshot_example *)(void *)(first + (uint32_t)index * TVMT_FEWSHOT_EXAMPLE_BYTES(store->dimension));
}

static inline int8_t *tvmt_fewshot_values(tvmt_fewshot_example *example) {
  return (int8_t *)example + sizeof *example;
}

/* Make an empty store of `bytes` bytes of memory, aligned to 4. */
static inline int tvmt_fewshot_init(tvmt_fewshot *store, size_t bytes, int32_t capacity, int32_t dimension,
                                    uint32_t model) {
  if (dimension < 1 || dimension > TVMT_FEWSHOT_MOST) return TVMT_FEWSHOT_ERROR_SIZE;
  if (capacity < 1 || capacity > TVMT_FEWSHOT_MOST) return TVMT_FEWSHOT_ERROR_SIZE;
  if (bytes < TVMT_FEWSHOT_BYTES(capacity, dimension)) return TVMT_FEWSHOT_ERROR_SIZE;
  memset(store, 0, TVMT_FEWSHOT_BYTES(capacity, dimension));
  store->magic = TVMT_FEWSHOT_MAGIC;
  store->version = TVMT_FEWSHOT_VERSION;
  store->dimension = (uint16_t)dimension;
  store->capacity = (uint16_t)capacity;
  store->model = model;
  return TVMT_FEWSHOT_OK;
}

/* value / 2**shift to the nearest, halves up. */
static inline int64_t tvmt_fewshot_round(int64_t value, int32_t shift) {
  return shift == 0 ? value : (value + (INT64_C(1) << (shift - 1))) >> shift;
}

static inline int32_t tvmt_fewshot_element(const tvmt_fewshot_embedding *from, int32_t index) {
  return (from->s8 != NULL ? from->s8[index] : from->s16[index]) - from->zero_point;
}

/* Write an example without a label: values, shifted into int8 where they do not fit, and their rate. */
static inline int tvmt_fewshot_direct(tvmt_fewshot_example *to, const tvmt_fewshot_embedding *from,
                                      int32_t dimension) {
  int8_t *values = tvmt_fewshot_values(to);
  memset(to, 0, TVMT_FEWSHOT_EXAMPLE_BYTES(dimension));
  int32_t low = 0, high = 0, shift = 0, exponent;
  uint32_t squares = 0;
  for (int32_t i = 0; i < dimension; ++i) {
    const int32_t value = tvmt_fewshot_element(from, i);
    low = value < low ? value : low;
    high = value > high ? value : high;
  }
  while (tvmt_fewshot_round(low, shift) < INT8_MIN || tvmt_fewshot_round(high, shift) > INT8_MAX) ++shift;
  for (int32_t i = 0; i < dimension; ++i) {
    values[i] = (int8_t)tvmt_fewshot_round(tvmt_fewshot_element(from, i), shift);
    squares += (uint32_t)(values[i] * values[i]);
  }
  if (squares == 0) return TVMT_FEWSHOT_ERROR_ZERO;
  /* 2**30 / sqrt(squares): exponent is 31 to 43, as squares < 2**25. */
  const uint32_t root = tvmt_reciprocal_sqrt(squares, &exponent);
  to->rate = root >> (exponent - 30);
  return TVMT_FEWSHOT_OK;
}

/* Add an example; label 0 to 32767. Examples lie in the order of their labels, those of one label as they came. */
static inline int tvmt_fewshot_enrol(tvmt_fewshot *store, int32_t label, tvmt_fewshot_embedding embedding) {
  const uint32_t bytes = TVMT_FEWSHOT_EXAMPLE_BYTES(store->dimension);
  tvmt_fewshot_example *made = tvmt_fewshot_at(store, store->capacity);
  int32_t place = store->count;
  if (label < 0 || label > INT16_MAX) return TVMT_FEWSHOT_ERROR_LABEL;
  if (store->count >= store->capacity) return TVMT_FEWSHOT_ERROR_FULL;
  const int status = tvmt_fewshot_direct(made, &embedding, store->dimension);
  if (status != TVMT_FEWSHOT_OK) return status;
  made->label = (int16_t)label;
  while (place > 0 && tvmt_fewshot_at(store, place - 1)->label > label) --place;
  tvmt_fewshot_example *at = tvmt_fewshot_at(store, place);
  memmove(tvmt_fewshot_at(store, place + 1), at, (uint32_t)(store->count - place) * bytes);
  memcpy(at, made, bytes);
  store->count = (uint16_t)(store->count + 1);
  return TVMT_FEWSHOT_OK;
}

/* Remove all examples of a label; returns how many there were. The others keep their order. */
static inline int32_t tvmt_fewshot_forget(tvmt_fewshot *store, int32_t label) {
  int32_t kept = 0;
  const int32_t before = store->count;
  for (int32_t i = 0; i < before; ++i) {
    if (tvmt_fewshot_at(store, i)->label == label) continue;
    memmove(tvmt_fewshot_at(store, kept), tvmt_fewshot_at(store, i), TVMT_FEWSHOT_EXAMPLE_BYTES(store->dimension));
    ++kept;
  }
  store->count = (uint16_t)kept;
  return before - kept;
}

/* Cosine of two examples. */
static inline int32_t tvmt_fewshot_similarity(tvmt_fewshot_example *a, tvmt_fewshot_example *b, int32_t dimension) {
  const int8_t *x = tvmt_fewshot_values(a), *y = tvmt_fewshot_values(b);
  int32_t dot = 0;
  for (int32_t i = 0; i < dimension; ++i) dot += x[i] * y[i];
  /* |dot| <= |x| |y|, and the rates divide by these: the products stay below 2**46. */
  const int64_t scaled = tvmt_fewshot_round((int64_t)dot * a->rate, 15);
  return (int32_t)tvmt_fewshot_round(scaled * b->rate, 30);
}

/* Cosine of a query and the mean of the unit vectors of the examples first to first + members - 1. */
static inline int32_t tvmt_fewshot_mean_similarity(tvmt_fewshot *store, tvmt_fewshot_example *query, int32_t first,
                                                   int32_t members) {
  int32_t bits = 0, dot = 0, exponent;
  uint64_t squares = 0;
  while ((INT32_C(1) << bits) < members) ++bits;
  for (int32_t j = 0; j < store->dimension; ++j) {
    int64_t sum = 0; /* of components with 30 fractional bits */
    for (int32_t i = first; i < first + members; ++i) {
      tvmt_fewshot_example *example = tvmt_fewshot_at(store, i);
      sum += (int64_t)tvmt_fewshot_values(example)[j] * example->rate;
    }
    const int32_t mean = (int32_t)tvmt_fewshot_round(sum, 15 + bits); /* at least half the mean, 15 bits */
    dot += mean * tvmt_fewshot_values(query)[j];
    squares += (uint64_t)((int64_t)mean * mean);
  }
  if (squares == 0) return -TVMT_FEWSHOT_ONE; /* the examples point in opposite directions: no mean */
  const int64_t scaled = tvmt_fewshot_round((int64_t)dot * query->rate, 15); /* at most 2**30 */
  const uint32_t root = tvmt_reciprocal_sqrt(squares, &exponent);
  return (int32_t)tvmt_fewshot_round(scaled * (int64_t)root, exponent);
}

/* How many examples from `first` on have its label. */
static inline int32_t tvmt_fewshot_members(tvmt_fewshot *store, int32_t first) {
  int32_t end = first + 1;
  while (end < store->count && tvmt_fewshot_at(store, end)->label == tvmt_fewshot_at(store, first)->label) ++end;
  return end - first;
}

/* The label of an embedding; of equally near ones the least. TVMT_FEWSHOT_OK, or _ERROR_ZERO. */
static inline int tvmt_fewshot_classify(tvmt_fewshot *store, tvmt_fewshot_embedding embedding, tvmt_fewshot_rule rule,
                                        tvmt_fewshot_answer *answer) {
  tvmt_fewshot_example *query = tvmt_fewshot_at(store, store->capacity);
  const int status = tvmt_fewshot_direct(query, &embedding, store->dimension);
  int32_t best = -TVMT_FEWSHOT_ONE - 1, other = best, nearest = TVMT_FEWSHOT_UNKNOWN, members = 1;
  if (status != TVMT_FEWSHOT_OK) return status;
  for (int32_t i = 0; i < store->count; i += members) {
    tvmt_fewshot_example *example = tvmt_fewshot_at(store, i);
    members = rule.by_mean ? tvmt_fewshot_members(store, i) : 1;
    const int32_t similarity = rule.by_mean ? tvmt_fewshot_mean_similarity(store, query, i, members)
                                            : tvmt_fewshot_similarity(example, query, store->dimension);
    if (similarity > best) {
      other = example->label != nearest ? best : other;
      best = similarity;
      nearest = example->label;
    } else if (example->label != nearest && similarity > other) {
      other = similarity;
    }
  }
  answer->nearest = nearest;
  answer->similarity = store->count == 0 ? -TVMT_FEWSHOT_ONE : best;
  answer->margin = other < -TVMT_FEWSHOT_ONE ? 2 * TVMT_FEWSHOT_ONE : best - other;
  const int near = answer->similarity >= rule.least_similarity && answer->margin >= rule.least_margin;
  answer->label = near ? nearest : TVMT_FEWSHOT_UNKNOWN;
  return TVMT_FEWSHOT_OK;
}

static inline uint32_t tvmt_fewshot_crc(uint32_t crc, const uint8_t *bytes, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    crc ^= bytes[i];
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (UINT32_C(0xEDB88320) & (0u - (crc & 1u)));
  }
  return crc;
}

static inline uint32_t tvmt_fewshot_crc_of(const tvmt_fewshot *store) {
  const uint8_t *bytes = (const uint8_t *)store;
  const uint32_t head = (uint32_t)offsetof(tvmt_fewshot, crc);
  const uint32_t crc = tvmt_fewshot_crc(UINT32_MAX, bytes, head);
  const uint32_t rest = tvmt_fewshot_saved_bytes(store) - (uint32_t)sizeof *store;
  return ~tvmt_fewshot_crc(crc, bytes + sizeof *store, rest);
}

/* Write the checksum, before the store is copied to flash. */
static inline void tvmt_fewshot_seal(tvmt_fewshot *store) { store->crc = tvmt_fewshot_crc_of(store); }

/* Check a sealed store that was copied back into a block of `bytes` bytes. */
static inline int tvmt_fewshot_open(const tvmt_fewshot *store, size_t bytes, int32_t dimension, uint32_t model) {
  if (bytes < sizeof *store) return TVMT_FEWSHOT_ERROR_SIZE;
  if (store->magic != TVMT_FEWSHOT_MAGIC || store->version != TVMT_FEWSHOT_VERSION) return TVMT_FEWSHOT_ERROR_FORMAT;
  if (store->dimension != dimension || store->model != model) return TVMT_FEWSHOT_ERROR_FORMAT;
  if (store->capacity < 1 || store->capacity > TVMT_FEWSHOT_MOST) return TVMT_FEWSHOT_ERROR_FORMAT;
  if (store->count > store->capacity) return TVMT_FEWSHOT_ERROR_FORMAT;
  if (bytes < TVMT_FEWSHOT_BYTES(store->capacity, store->dimension)) return TVMT_FEWSHOT_ERROR_SIZE;
  return store->crc == tvmt_fewshot_crc_of(store) ? TVMT_FEWSHOT_OK : TVMT_FEWSHOT_ERROR_CRC;
}

#endif
