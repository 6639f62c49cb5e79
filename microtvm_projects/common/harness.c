/* Serves a model over the link: the same program on the host, under QEMU and on a board. tvmt_link.h has the requests,
 * tvmt_transport.h what it stands on.
 *
 * Defined by the build: TVMT_MODEL (the descriptor's name), TVMT_MODEL_ID, TVMT_TARGET, TVMT_VERSION, TVMT_ARENA_BYTES,
 * TVMT_ARENA_ALIGN, TVMT_SAVED_BYTES (0: no memory for a copy of the inputs), TVMT_GUARD_BYTES. Inputs are written
 * straight into the arena and outputs read from it, so that the harness fits beside a model in 16 KB of RAM.
 */
#include "tvmt_link.h"
#include "tvmt_model.h"
#include "tvmt_transport.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensors are little endian on the line"
#endif

#define GUARD_BYTE 0xd7u
#define FRAME_BYTES 256u /* the host's batches rely on it: tvmtiny/link/messages.py */
#define READ_BYTES 64u

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

static uint8_t received[FRAME_BYTES];
static uint8_t sent[FRAME_BYTES];
#if TVMT_SAVED_BYTES > 0
static uint8_t saved[TVMT_SAVED_BYTES];
#endif

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
static void check_guard(uint8_t *guard, int32_t offset, tvmt_link_measure *measure) {
  for (uint32_t i = 0; i < TVMT_GUARD_BYTES; i++) {
    if (guard[i] != GUARD_BYTE) {
      if (measure->guard_bytes == 0u) {
        measure->guard_offset = offset + (int32_t)i;
      }
      measure->guard_bytes++;
      guard[i] = GUARD_BYTE;
    }
  }
}

static void open_session(void *context, uint8_t value) {
  (void)context;
  fill(memory.before, TVMT_GUARD_BYTES, GUARD_BYTE);
  fill(memory.arena, TVMT_ARENA_BYTES, value);
  fill(memory.after, TVMT_GUARD_BYTES, GUARD_BYTE);
  if (TVMT_MODEL.init != NULL) {
    (void)TVMT_MODEL.init(memory.arena, TVMT_ARENA_BYTES); /* if it fails, each run says so */
  }
}

static __attribute__((noinline)) void measured_run(void *context, int32_t n_tokens, tvmt_link_measure *measure) {
  (void)context;
  int (*const run)(void *, size_t, int32_t) = TVMT_MODEL.run;
  if (n_tokens == 0 && TVMT_MODEL.reset != NULL) { /* the beginning of a sequence; there is nothing to measure */
    measure->status = TVMT_MODEL.reset(memory.arena, TVMT_ARENA_BYTES);
    return;
  }
  tvmt_stack_paint();
  tvmt_mark(1);
  const uint64_t start = tvmt_counter_read();
  tvmt_measure_begin();
  measure->status = run(memory.arena, TVMT_ARENA_BYTES, n_tokens);
  tvmt_measure_end();
  measure->cycles = tvmt_counter_read() - start;
  tvmt_mark(0);
  measure->stack_bytes = tvmt_stack_peak(__builtin_frame_address(0));
  check_guard(memory.before, -(int32_t)TVMT_GUARD_BYTES, measure);
  check_guard(memory.after, (int32_t)TVMT_ARENA_BYTES, measure);
}

static int serve(tvmt_link *link) {
  uint8_t bytes[READ_BYTES];
  int32_t count = tvmt_transport_read(bytes, sizeof bytes);
  while (count > 0) {
    if (tvmt_link_receive(link, bytes, (uint32_t)count) != 0) {
      return TVMT_EXIT_WRITE;
    }
    count = tvmt_transport_read(bytes, sizeof bytes);
  }
  return count < 0 || tvmt_link_pending(link) ? TVMT_EXIT_READ : TVMT_EXIT_DONE;
}

int main(void) {
  tvmt_link_config config = {.model = &TVMT_MODEL,
                             .arena = memory.arena,
                             .model_id = TVMT_MODEL_ID,
                             .target = TVMT_TARGET,
                             .version = TVMT_VERSION,
                             .received = received,
                             .sent = sent,
                             .frame_bytes = FRAME_BYTES,
                             .open = open_session,
                             .run = measured_run,
                             .write = tvmt_transport_write};
#if TVMT_SAVED_BYTES > 0
  config.saved = saved;
  config.saved_bytes = TVMT_SAVED_BYTES;
#endif
  tvmt_link link;
  int status = TVMT_EXIT_DONE;
  config.counter = tvmt_counter_start(&config.clock_hz);
  if (TVMT_MODEL.arena_bytes > TVMT_ARENA_BYTES || TVMT_MODEL.arena_align > TVMT_ARENA_ALIGN) {
    status = TVMT_EXIT_ARENA;
  } else if (tvmt_transport_open() != 0 || tvmt_link_init(&link, &config) != 0) {
    status = TVMT_EXIT_OPEN;
  } else {
    status = serve(&link);
  }
  tvmt_transport_exit(status);
}
