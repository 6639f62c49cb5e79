/* libFuzzer's view of the link: arbitrary bytes on the line, with the model of tests/qemu/fake_model.c in the arena.
 *
 * The first byte chooses how the rest arrives: as it is, or as requests whose COBS and CRC are right, so that the
 * fuzzer reaches what lies behind them; then each is: kind, sequence, session, size, payload. After every input the
 * device must still answer: what an attacker or noise says must not lock it up.
 */
#include <stdlib.h>
#include <string.h>

#define FAKE_ARENA_BYTES 48
#include "fake_model.c"
#include "tvmt_link.h"

enum { FRAME = 256, GUARD = 16 };

static _Alignas(16) uint8_t arena[FAKE_ARENA_BYTES];
static uint8_t answer[4 * FRAME];
static uint32_t answer_bytes;

static int keep(void *context, const uint8_t *bytes, uint32_t count) {
  (void)context;
  for (uint32_t i = 0; i < count; i++) {
    answer[answer_bytes < sizeof answer - 1u ? answer_bytes++ : 0u] = bytes[i];
  }
  return 0;
}

/* The real model, but for the inputs with which it misbehaves by design. */
static void run_model(void *context, int32_t n_tokens, tvmt_link_measure *measure) {
  (void)context;
  uint16_t first;
  memcpy(&first, arena, sizeof first);
  measure->status = first >= STALE ? -1 : fake_model.run(arena, sizeof arena, n_tokens);
}

static void fill(void *context, uint8_t value) {
  (void)context;
  memset(arena, value, sizeof arena);
}

static void send(tvmt_link *link, uint8_t kind, uint16_t sequence, uint32_t session, const uint8_t *payload,
                 uint32_t count) {
  uint8_t frame[FRAME + GUARD] = {0, kind, (uint8_t)sequence, (uint8_t)(sequence >> 8)};
  tvmt_put_u32(&frame[TVMT_FRAME_SESSION_AT], session);
  if (count != 0u) {
    memcpy(&frame[TVMT_FRAME_HEADER_BYTES], payload, count);
  }
  answer_bytes = 0;
  (void)tvmt_frame_send(frame, count, keep, NULL);
  const uint32_t size = answer_bytes;
  uint8_t line[4 * FRAME];
  memcpy(line, answer, size);
  answer_bytes = 0;
  if (tvmt_link_receive(link, line, size) != 0) {
    abort();
  }
}

static void send_requests(tvmt_link *link, const uint8_t *data, size_t size) {
  while (size >= 4u) {
    const uint32_t count = data[3] < size - 4u ? data[3] : (uint32_t)(size - 4u);
    const uint32_t payload = count < FRAME - TVMT_FRAME_EXTRA_BYTES ? count : FRAME - TVMT_FRAME_EXTRA_BYTES;
    send(link, data[0], data[1], data[2], &data[4], payload);
    data += 4u + count;
    size -= 4u + count;
  }
}

/* A zero ends what was begun; then a session opens and the model gives what it must. */
static void check_alive(tvmt_link *link) {
  static const uint8_t zero = 0;
  static const uint16_t ids[S] = {1, 2, 3, 4, 5, 6, 7, 8};
  uint8_t payload[4 + sizeof ids] = {0}, request[12] = {S};
  memcpy(&payload[4], ids, sizeof ids);
  tvmt_put_u32(&request[4], tvmt_crc32(0, &payload[4], sizeof ids));
  tvmt_put_u32(&request[8], TVMT_LINK_WHOLE_RUN);
  (void)tvmt_link_receive(link, &zero, 1);
  const uint32_t session = link->session + 77u != 0u ? link->session + 77u : 1u;
  send(link, TVMT_LINK_INFO, 1, session, payload, 4);
  send(link, TVMT_LINK_WRITE, 2, session, payload, sizeof payload);
  send(link, TVMT_LINK_RUN, 3, session, request, sizeof request);
  const int16_t *logits = (const int16_t *)(const void *)&arena[16];
  if (link->session != session || logits[0] != 3 - 2 + 12 + 4 - 25 + 54 + 14 - 48) {
    abort();
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  /* On the heap, so that AddressSanitizer sees the first byte beyond. */
  uint8_t *received = malloc(FRAME), *sent = malloc(FRAME), *saved = malloc(S * 2);
  const tvmt_link_config config = {.model = &fake_model,
                                   .arena = arena,
                                   .target = "fuzzer",
                                   .version = "0",
                                   .received = received,
                                   .sent = sent,
                                   .frame_bytes = FRAME,
                                   .saved = saved,
                                   .saved_bytes = S * 2,
                                   .open = fill,
                                   .run = run_model,
                                   .write = keep};
  tvmt_link link;
  if (tvmt_link_init(&link, &config) != 0) {
    abort();
  }
  if (size != 0u && (data[0] & 1u) != 0u) {
    send_requests(&link, &data[1], size - 1u);
  } else if (size != 0u) {
    answer_bytes = 0;
    (void)tvmt_link_receive(&link, &data[1], (uint32_t)(size - 1u));
  }
  check_alive(&link);
  free(received);
  free(sent);
  free(saved);
  return 0;
}
