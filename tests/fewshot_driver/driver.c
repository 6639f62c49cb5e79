/* Runs a script of few-shot calls on a store; fewshot_driver/script.py writes scripts and says what must come out.
 *
 * In: capacity, dimension, number of calls, then each call as eight int16 (operation, label, bits of an element, zero
 * point, by_mean, least_similarity / 2, least_margin / 4, moved) and its embedding as int16. Out: five int32 a call, then
 * the saved bytes of the sealed store. Before a classification with `moved` the store goes through "flash".
 */
#include "tvmt_fewshot.h"
#include "tvmt_model.h"

enum { SCRIPT = 24576, RESULTS = 12288, STORE = 4096, WORDS = 5, HEADER = 8, ENROL = 0, FORGET = 1, CLASSIFY = 2 };

static uint32_t blocks[2][STORE / 4];
static int8_t narrow[TVMT_FEWSHOT_MOST];

static tvmt_fewshot_embedding embedding_of(const int16_t *call, int32_t dimension) {
  if (call[2] == 16) return tvmt_fewshot_s16(call + HEADER, call[3]);
  for (int32_t i = 0; i < dimension; ++i) narrow[i] = (int8_t)call[HEADER + i];
  return tvmt_fewshot_s8(narrow, call[3]);
}

static int32_t classify(tvmt_fewshot *store, const int16_t *call, tvmt_fewshot_answer *answer) {
  const tvmt_fewshot_rule rule = {call[4], call[5] * 2, call[6] * 4};
  return tvmt_fewshot_classify(store, embedding_of(call, store->dimension), rule, answer);
}

/* The store through "flash": sealed, its saved bytes copied to the other block, opened. */
static tvmt_fewshot *moved(tvmt_fewshot *store, int32_t *status) {
  void *other = (void *)store == (void *)blocks[0] ? blocks[1] : blocks[0];
  tvmt_fewshot_seal(store);
  memset(other, 0x55, STORE);
  memcpy(other, store, tvmt_fewshot_saved_bytes(store));
  *status = tvmt_fewshot_open((tvmt_fewshot *)other, STORE, store->dimension, store->model);
  return (tvmt_fewshot *)other;
}

int fewshot_run(void *arena, size_t arena_bytes, int32_t n_tokens);

int fewshot_run(void *arena, size_t arena_bytes, int32_t n_tokens) {
  const int16_t *script = (const int16_t *)arena;
  uint8_t *out = (uint8_t *)arena + SCRIPT;
  tvmt_fewshot *store = (tvmt_fewshot *)(void *)blocks[0];
  if (arena_bytes < SCRIPT + RESULTS || n_tokens != 1) return -1;
  memset(out, 0, RESULTS);
  int32_t status = tvmt_fewshot_init(store, STORE, script[0], script[1], 77);
  if (status != TVMT_FEWSHOT_OK) return status;
  const int16_t *call = script + 3;
  for (int32_t i = 0; i < script[2]; ++i, call += HEADER + script[1]) {
    tvmt_fewshot_answer answer = {0, 0, 0, 0};
    if (call[0] == ENROL) status = tvmt_fewshot_enrol(store, call[1], embedding_of(call, script[1]));
    if (call[0] == FORGET) status = tvmt_fewshot_forget(store, call[1]);
    if (call[0] == CLASSIFY) {
      status = TVMT_FEWSHOT_OK;
      if (call[7]) store = moved(store, &status);
      if (status == TVMT_FEWSHOT_OK) status = classify(store, call, &answer);
    }
    const int32_t row[WORDS] = {status, answer.label, answer.nearest, answer.similarity, answer.margin};
    memcpy(out, row, sizeof row);
    out += sizeof row;
  }
  tvmt_fewshot_seal(store);
  memcpy(out, store, tvmt_fewshot_saved_bytes(store));
  return 0;
}

static const tvmt_tensor inputs[] = {{"script", 0, SCRIPT}};
static const tvmt_tensor outputs[] = {{"results", SCRIPT, RESULTS}};

extern const tvmt_model fewshot_model;
const tvmt_model fewshot_model = {"fewshot", SCRIPT + RESULTS, 16, 1, 1, inputs, 1, outputs, fewshot_run, NULL, NULL};
