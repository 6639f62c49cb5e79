/* A model for tests of the runner: outputs[i] = sum of weights[j] * id[j] up to n_tokens, plus i. The first token id
 * selects misbehaviour (see test_runner.py).
 */
#include <stddef.h>
#include <stdint.h>

#include "tvmt_model.h"

#ifndef TVMT_WEIGHTS_SECTION
#define TVMT_WEIGHTS_SECTION
#endif
#ifndef TVMT_CODE_SECTION
#define TVMT_CODE_SECTION
#endif
#ifndef FAKE_EXTRA_WEIGHTS
#define FAKE_EXTRA_WEIGHTS 8
#endif

enum { S = 8, OUTPUTS = 4, CRASH = 0xffff, HANG = 0xfffe, PAST = 0xfffd, BEFORE = 0xfffc, DEEP = 0xfffb, STALE = 0xfffa };

TVMT_WEIGHTS_SECTION static const int8_t weights[S + FAKE_EXTRA_WEIGHTS] = {3, -1, 4, 1, -5, 9, 2, -6};
static const tvmt_tensor inputs[] = {{"input_ids", 0, S * 2}};
static const tvmt_tensor outputs[] = {{"logits", 16, OUTPUTS * 2}};

__attribute__((noinline)) static int deep(volatile uint8_t *arena, int depth) {
  volatile uint8_t frame[64];
  frame[0] = arena[0];
  return depth == 0 ? frame[0] : deep(arena, depth - 1) + frame[0];
}

TVMT_CODE_SECTION __attribute__((noinline)) static int32_t dot(const uint16_t *ids, int32_t n_tokens) {
  int32_t sum = 0;
  for (int32_t i = 0; i < n_tokens; i++) {
    sum += weights[i] * ids[i];
  }
  return sum;
}

static int run(void *arena, size_t arena_bytes, int32_t n_tokens) {
  uint16_t *ids = arena;
  uint8_t *bytes = arena;
  if (n_tokens < 1 || n_tokens > S) {
    return -4;
  }
  switch (ids[0]) {
    case CRASH: __builtin_trap();
    case HANG:
      for (;;) {
        __asm__ volatile("");
      }
    case PAST: bytes[arena_bytes + 5] = 1; break;
    case BEFORE: *(volatile uint8_t *)(bytes - 3) = 1; break;
    case DEEP: return deep(bytes, 1000000);
    case STALE: ids[1] = ++ids[12]; break;
    default: break;
  }
  const int32_t sum = dot(ids, n_tokens);
  int16_t *logits = (int16_t *)(void *)(bytes + 16);
  for (int32_t i = 0; i < OUTPUTS; i++) {
    logits[i] = (int16_t)(sum + i);
  }
  ids[0] = 0;
  return 0;
}

extern const tvmt_model fake_model;
const tvmt_model fake_model = {"fake", FAKE_ARENA_BYTES, 16, S, 1, inputs, 1, outputs, run, NULL, NULL};
