/* Runs a model on the samples of a request and answers with its outputs: the same program on the host, under QEMU
 * and on a board. tvmt_protocol.h has the bytes, tvmt_transport.h what it stands on.
 *
 * Defined by the build: TVMT_MODEL (the descriptor's name), TVMT_ARENA_BYTES, TVMT_ARENA_ALIGN, and optionally
 * TVMT_GUARD_BYTES. Inputs are read straight into the arena and outputs written from it: there is no other buffer,
 * so that the harness fits beside a model in 16 KB of RAM.
 */
#include "tvmt_model.h"
#include "tvmt_protocol.h"
#include "tvmt_transport.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the protocol's words are little endian"
#endif

#ifndef TVMT_GUARD_BYTES
#define TVMT_GUARD_BYTES 64u
#endif
#define GUARD_BYTE 0xd7u

#if TVMT_GUARD_BYTES % TVMT_ARENA_ALIGN != 0
#error "TVMT_GUARD_BYTES must be a multiple of TVMT_ARENA_ALIGN, or the arena is not aligned"
#endif

extern const tvmt_model TVMT_MODEL;

typedef struct {
  uint8_t before[TVMT_GUARD_BYTES];
  uint8_t arena[TVMT_ARENA_BYTES];
  uint8_t after[TVMT_GUARD_BYTES];
} guarded_arena;

#ifdef TVMT_ARENA_SECTION
__attribute__((section(TVMT_ARENA_SECTION)))
#endif
static _Alignas(TVMT_ARENA_ALIGN) guarded_arena memory;

static tvmt_response_end result;

/* The plugin counts what runs between these two; they must be calls, and stay in this order. */
__attribute__((noinline)) void tvmt_measure_begin(void);
__attribute__((noinline)) void tvmt_measure_end(void);
void tvmt_measure_begin(void) { __asm__ volatile("" ::: "memory"); }
void tvmt_measure_end(void) { __asm__ volatile("" ::: "memory"); }

static void fill(uint8_t *to, uint32_t bytes, uint8_t value) {
  for (uint32_t i = 0; i < bytes; i++) {
    to[i] = value;
  }
}

/* Counts the overwritten bytes of a guard and restores it; `offset` is where the guard lies in the arena's terms. */
static void check_guard(uint8_t *guard, int32_t offset, uint32_t sample) {
  for (uint32_t i = 0; i < TVMT_GUARD_BYTES; i++) {
    if (guard[i] != GUARD_BYTE) {
      if (result.guard_bytes == 0u) {
        result.guard_sample = sample;
        result.guard_offset = offset + (int32_t)i;
      }
      result.guard_bytes++;
      guard[i] = GUARD_BYTE;
    }
  }
}

static __attribute__((noinline)) int measured_run(const tvmt_model *model, int32_t n_tokens) {
  tvmt_stack_paint();
  tvmt_measure_begin();
  const int status = model->run(memory.arena, TVMT_ARENA_BYTES, n_tokens);
  tvmt_measure_end();
  const uint32_t peak = tvmt_stack_peak(__builtin_frame_address(0));
  if (peak > result.stack_bytes) {
    result.stack_bytes = peak;
  }
  return status;
}

static int read_request_header(const tvmt_model *model, tvmt_request_header *header) {
  if (tvmt_transport_read(header, sizeof *header) != 0) {
    return TVMT_EXIT_READ;
  }
  if (header->magic != TVMT_REQUEST_MAGIC || header->version != TVMT_PROTOCOL_VERSION ||
      header->n_inputs != model->n_inputs) {
    return TVMT_EXIT_REQUEST;
  }
  for (uint32_t i = 0; i < model->n_inputs; i++) {
    uint32_t bytes = 0;
    if (tvmt_transport_read(&bytes, sizeof bytes) != 0) {
      return TVMT_EXIT_READ;
    }
    if (bytes != model->inputs[i].bytes) {
      return TVMT_EXIT_REQUEST;
    }
  }
  return TVMT_EXIT_DONE;
}

static int write_response_header(const tvmt_model *model) {
  const tvmt_response_header header = {TVMT_RESPONSE_MAGIC, TVMT_PROTOCOL_VERSION, model->n_outputs};
  int failed = tvmt_transport_write(&header, sizeof header);
  for (uint32_t i = 0; i < model->n_outputs; i++) {
    failed |= tvmt_transport_write(&model->outputs[i].bytes, sizeof model->outputs[i].bytes);
  }
  return failed != 0 ? TVMT_EXIT_WRITE : TVMT_EXIT_DONE;
}

static int serve_sample(const tvmt_model *model, uint32_t sample) {
  int32_t n_tokens = 0;
  int failed = tvmt_transport_read(&n_tokens, sizeof n_tokens);
  for (uint32_t i = 0; i < model->n_inputs; i++) {
    failed |= tvmt_transport_read(&memory.arena[model->inputs[i].offset], model->inputs[i].bytes);
  }
  if (failed != 0) {
    return TVMT_EXIT_READ;
  }
  const int begins = n_tokens == 0 && model->reset != NULL;
  const int32_t status = begins ? model->reset(memory.arena, TVMT_ARENA_BYTES) : measured_run(model, n_tokens);
  if (result.stack_bytes == UINT32_MAX) {
    return TVMT_EXIT_STACK;
  }
  check_guard(memory.before, -(int32_t)TVMT_GUARD_BYTES, sample);
  check_guard(memory.after, (int32_t)TVMT_ARENA_BYTES, sample);
  failed = tvmt_transport_write(&status, sizeof status);
  for (uint32_t i = 0; status == 0 && i < model->n_outputs; i++) {
    failed |= tvmt_transport_write(&memory.arena[model->outputs[i].offset], model->outputs[i].bytes);
  }
  return failed != 0 ? TVMT_EXIT_WRITE : TVMT_EXIT_DONE;
}

static int serve(const tvmt_model *model) {
  tvmt_request_header header;
  int status = read_request_header(model, &header);
  if (status != TVMT_EXIT_DONE) {
    return status;
  }
  if (model->arena_bytes > TVMT_ARENA_BYTES || model->arena_align > TVMT_ARENA_ALIGN) {
    return TVMT_EXIT_ARENA;
  }
  fill(memory.before, TVMT_GUARD_BYTES, GUARD_BYTE);
  fill(memory.arena, TVMT_ARENA_BYTES, (uint8_t)header.fill);
  fill(memory.after, TVMT_GUARD_BYTES, GUARD_BYTE);
  status = write_response_header(model);
  for (uint32_t sample = 0; status == TVMT_EXIT_DONE && sample < header.n_samples; sample++) {
    status = serve_sample(model, sample);
  }
  if (status == TVMT_EXIT_DONE) {
    result.magic = TVMT_END_MAGIC;
    status = tvmt_transport_write(&result, sizeof result) != 0 ? TVMT_EXIT_WRITE : TVMT_EXIT_DONE;
  }
  return status;
}

int main(void) {
  const int status = tvmt_transport_open() != 0 ? TVMT_EXIT_OPEN : serve(&TVMT_MODEL);
  tvmt_transport_exit(status);
}
