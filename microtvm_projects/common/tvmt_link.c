/* See tvmt_link.h. A request is answered into `sent`, where the answer stays until the next request. */
#include "tvmt_link.h"

#include <string.h>

#ifdef TVMT_LINK_DEBUG
uint32_t tvmt_stop_after = TVMT_LINK_WHOLE_RUN;
#endif

/* Answers: the size of the payload, or an error as its negative. */
typedef int32_t (*handler)(tvmt_link *link, uint8_t *request, uint32_t count, uint8_t *answer);

static uint32_t total_bytes(const tvmt_tensor *tensors, uint32_t count) {
  uint32_t sum = 0;
  for (uint32_t i = 0; i < count; i++) {
    sum += tensors[i].bytes;
  }
  return sum;
}

static uint32_t data_bytes(const tvmt_link_config *config) {
  return config->frame_bytes - TVMT_FRAME_EXTRA_BYTES - 4u; /* WRITE has an offset before its data */
}

static int within(uint32_t offset, uint32_t count, uint32_t size) { return offset <= size && count <= size - offset; }

static int32_t append_text(uint8_t *answer, int32_t at, const char *text, uint32_t room) {
  uint32_t count = 0;
  while (text[count] != '\0' && count < room - 1u) {
    count++;
  }
  memcpy(&answer[at], text, count);
  answer[at + (int32_t)count] = 0;
  return at + (int32_t)count + 1;
}

static int32_t answer_info(tvmt_link *link, uint8_t *request, uint32_t count, uint8_t *answer) {
  const tvmt_link_config *config = link->config;
  if (count != 4u) {
    return -(int32_t)TVMT_LINK_ERROR_PAYLOAD;
  }
  if (config->open != NULL) {
    config->open(config->context, request[0]);
  }
  memcpy(&answer[TVMT_LINK_INFO_MODEL_ID], config->model_id, sizeof config->model_id);
  tvmt_put_u32(&answer[TVMT_LINK_INFO_CLOCK], config->clock_hz);
  tvmt_put_u32(&answer[TVMT_LINK_INFO_COUNTER], (uint32_t)config->counter);
#ifdef TVMT_LINK_DEBUG
  tvmt_put_u32(&answer[TVMT_LINK_INFO_FLAGS], TVMT_LINK_FLAG_DEBUG);
#else
  tvmt_put_u32(&answer[TVMT_LINK_INFO_FLAGS], 0);
#endif
  tvmt_put_u32(&answer[TVMT_LINK_INFO_DATA], data_bytes(config));
  tvmt_put_u32(&answer[TVMT_LINK_INFO_SAVED], config->saved_bytes);
  tvmt_put_u32(&answer[TVMT_LINK_INFO_ARENA], config->model->arena_bytes);
  tvmt_put_u32(&answer[TVMT_LINK_INFO_INPUTS], link->input_bytes);
  tvmt_put_u32(&answer[TVMT_LINK_INFO_OUTPUTS], link->output_bytes);
  tvmt_put_u32(&answer[TVMT_LINK_INFO_MAX_TOKENS], (uint32_t)config->model->max_tokens);
  int32_t at = append_text(answer, TVMT_LINK_INFO_BYTES, config->model->name, 64);
  at = append_text(answer, at, config->target, 40);
  return append_text(answer, at, config->version, 32);
}

/* Copies bytes between `data` and the tensors, of which `offset` counts through all. */
static void copy_tensors(uint8_t *arena, const tvmt_tensor *tensors, uint32_t offset, uint8_t *data, uint32_t count,
                         int to_arena) {
  for (; count != 0u; tensors++) {
    if (offset >= tensors->bytes) {
      offset -= tensors->bytes;
      continue;
    }
    const uint32_t rest = tensors->bytes - offset;
    const uint32_t part = count < rest ? count : rest;
    uint8_t *place = &arena[tensors->offset + offset];
    if (to_arena != 0) {
      memcpy(place, data, part);
    } else {
      memcpy(data, place, part);
    }
    data += part;
    count -= part;
    offset = 0;
  }
}

static int32_t answer_write(tvmt_link *link, uint8_t *request, uint32_t count, uint8_t *answer) {
  (void)answer;
  if (count < 4u) {
    return -(int32_t)TVMT_LINK_ERROR_PAYLOAD;
  }
  const uint32_t offset = tvmt_get_u32(request);
  if (!within(offset, count - 4u, link->input_bytes)) {
    return -(int32_t)TVMT_LINK_ERROR_RANGE;
  }
  copy_tensors(link->config->arena, link->config->model->inputs, offset, &request[4], count - 4u, 1);
  return 0;
}

static int32_t answer_read(tvmt_link *link, uint8_t *request, uint32_t count, uint8_t *answer) {
  if (count != 8u) {
    return -(int32_t)TVMT_LINK_ERROR_PAYLOAD;
  }
  const uint32_t offset = tvmt_get_u32(request), bytes = tvmt_get_u32(&request[4]);
  if (!within(offset, bytes, link->output_bytes) || bytes > data_bytes(link->config)) {
    return -(int32_t)TVMT_LINK_ERROR_RANGE;
  }
  copy_tensors(link->config->arena, link->config->model->outputs, offset, answer, bytes, 0);
  return (int32_t)bytes;
}

static uint32_t tensors_crc(const uint8_t *arena, const tvmt_tensor *tensors, uint32_t count) {
  uint32_t crc = 0;
  for (uint32_t i = 0; i < count; i++) {
    crc = tvmt_crc32(crc, &arena[tensors[i].offset], tensors[i].bytes);
  }
  return crc;
}

static int inputs_differ(const tvmt_link *link, uint32_t crc) {
  const tvmt_model *model = link->config->model;
  return tensors_crc(link->config->arena, model->inputs, model->n_inputs) != crc;
}

static void measured_run(const tvmt_link *link, int32_t n_tokens, tvmt_link_measure *measure) {
  memset(measure, 0, sizeof *measure);
  link->config->run(link->config->context, n_tokens, measure);
}

static void put_u64(uint8_t *to, uint64_t value) {
  tvmt_put_u32(to, (uint32_t)value);
  tvmt_put_u32(&to[4], (uint32_t)(value >> 32));
}

/* Whether a run may stop there; sets it. */
static int stops_after(uint32_t operator_index) {
#ifdef TVMT_LINK_DEBUG
  tvmt_stop_after = operator_index;
  return 1;
#else
  return operator_index == TVMT_LINK_WHOLE_RUN;
#endif
}

static int32_t answer_run(tvmt_link *link, uint8_t *request, uint32_t count, uint8_t *answer) {
  const tvmt_model *model = link->config->model;
  if (count != 12u) {
    return -(int32_t)TVMT_LINK_ERROR_PAYLOAD;
  }
  if (inputs_differ(link, tvmt_get_u32(&request[4]))) {
    return -(int32_t)TVMT_LINK_ERROR_INPUTS;
  }
  if (!stops_after(tvmt_get_u32(&request[8]))) {
    return -(int32_t)TVMT_LINK_ERROR_UNSUPPORTED;
  }
  tvmt_link_measure measure;
  measured_run(link, (int32_t)tvmt_get_u32(request), &measure);
  (void)stops_after(TVMT_LINK_WHOLE_RUN);
  if (measure.stack_bytes == UINT32_MAX) {
    return -(int32_t)TVMT_LINK_ERROR_STACK;
  }
  tvmt_put_u32(&answer[TVMT_LINK_RUN_STATUS], (uint32_t)measure.status);
  tvmt_put_u32(&answer[TVMT_LINK_RUN_STACK], measure.stack_bytes);
  put_u64(&answer[TVMT_LINK_RUN_CYCLES], measure.cycles);
  tvmt_put_u32(&answer[TVMT_LINK_RUN_GUARD], measure.guard_bytes);
  tvmt_put_u32(&answer[TVMT_LINK_RUN_GUARD_OFFSET], (uint32_t)measure.guard_offset);
  tvmt_put_u32(&answer[TVMT_LINK_RUN_OUTPUTS], tensors_crc(link->config->arena, model->outputs, model->n_outputs));
  return TVMT_LINK_RUN_BYTES;
}

/* 0, or the error for which a BENCHMARK is refused. */
static uint32_t benchmark_refusal(const tvmt_link *link, const uint8_t *request, uint32_t count) {
  if (count != 12u) {
    return TVMT_LINK_ERROR_PAYLOAD;
  }
  if (link->config->saved == NULL || link->config->saved_bytes < link->input_bytes) {
    return TVMT_LINK_ERROR_UNSUPPORTED;
  }
  const uint32_t runs = tvmt_get_u32(&request[8]);
  if (runs == 0u || runs > (data_bytes(link->config) - 4u) / 8u) {
    return TVMT_LINK_ERROR_RANGE;
  }
  return inputs_differ(link, tvmt_get_u32(&request[4])) ? TVMT_LINK_ERROR_INPUTS : 0u;
}

static int went_well(const tvmt_link_measure *measure) {
  return measure->status == 0 && measure->guard_bytes == 0u && measure->stack_bytes != UINT32_MAX;
}

/* Runs until one fails. A run may overwrite its inputs: they are kept aside, and are there again at the end. */
static int32_t answer_benchmark(tvmt_link *link, uint8_t *request, uint32_t count, uint8_t *answer) {
  const tvmt_link_config *config = link->config;
  const tvmt_tensor *inputs = config->model->inputs;
  const uint32_t refusal = benchmark_refusal(link, request, count);
  if (refusal != 0u) {
    return -(int32_t)refusal;
  }
  const uint32_t runs = tvmt_get_u32(&request[8]);
  tvmt_link_measure measure = {0, 0, 0, 0, 0};
  uint32_t done = 0;
  copy_tensors(config->arena, inputs, 0, config->saved, link->input_bytes, 0);
  while (done < runs && went_well(&measure)) {
    measured_run(link, (int32_t)tvmt_get_u32(request), &measure);
    copy_tensors(config->arena, inputs, 0, config->saved, link->input_bytes, 1);
    put_u64(&answer[4u + 8u * done], measure.cycles);
    done++;
  }
  if (measure.stack_bytes == UINT32_MAX) {
    return -(int32_t)TVMT_LINK_ERROR_STACK;
  }
  tvmt_put_u32(answer, (uint32_t)(measure.guard_bytes != 0u ? INT32_MIN : measure.status));
  return (int32_t)(4u + 8u * done);
}

static int32_t answer_peek(tvmt_link *link, uint8_t *request, uint32_t count, uint8_t *answer) {
#ifdef TVMT_LINK_DEBUG
  if (count != 8u) {
    return -(int32_t)TVMT_LINK_ERROR_PAYLOAD;
  }
  const uint32_t offset = tvmt_get_u32(request), bytes = tvmt_get_u32(&request[4]);
  if (!within(offset, bytes, link->config->model->arena_bytes) || bytes > data_bytes(link->config)) {
    return -(int32_t)TVMT_LINK_ERROR_RANGE;
  }
  memcpy(answer, &link->config->arena[offset], bytes);
  return (int32_t)bytes;
#else
  (void)link, (void)request, (void)count, (void)answer;
  return -(int32_t)TVMT_LINK_ERROR_UNSUPPORTED;
#endif
}

static int32_t execute(tvmt_link *link, uint8_t kind, uint8_t *payload, uint32_t count, uint8_t *answer) {
  static const handler handlers[] = {answer_info, answer_write, answer_run, answer_read, answer_benchmark, answer_peek};
  if (kind < TVMT_LINK_INFO || kind > TVMT_LINK_PEEK) {
    return -(int32_t)TVMT_LINK_ERROR_KIND;
  }
  return handlers[kind - TVMT_LINK_INFO](link, payload, count, answer);
}

/* Executes the request in `received`; returns the size of its answer, or an error as its negative. */
static int32_t answer_request(tvmt_link *link, uint32_t session, uint16_t sequence, uint32_t size) {
  uint8_t *request = link->config->received;
  const uint8_t kind = request[TVMT_FRAME_KIND_AT];
  if (request[TVMT_FRAME_VERSION_AT] != TVMT_FRAME_VERSION) {
    link->session = 0; /* here and below: the answer of its last request gives way to this one */
    return -(int32_t)TVMT_LINK_ERROR_VERSION;
  }
  if (session == 0u || (session != link->session && kind != TVMT_LINK_INFO)) {
    link->session = 0;
    return -(int32_t)TVMT_LINK_ERROR_SESSION;
  }
  link->session = session;
  link->sequence = sequence;
  return execute(link, kind, &request[TVMT_FRAME_HEADER_BYTES], size - TVMT_FRAME_EXTRA_BYTES,
                 &link->config->sent[TVMT_FRAME_HEADER_BYTES]);
}

/* Answers the frame of `size` bytes in `received`. */
static int answer_frame(tvmt_link *link, uint32_t size) {
  const tvmt_link_config *config = link->config;
  const uint8_t *request = config->received;
  uint8_t *answer = config->sent;
  const uint32_t session = tvmt_get_u32(&request[TVMT_FRAME_SESSION_AT]);
  const uint16_t sequence =
      (uint16_t)(request[TVMT_FRAME_SEQUENCE_AT] | (uint32_t)request[TVMT_FRAME_SEQUENCE_AT + 1] << 8);
  const int repeated = session != 0u && session == link->session && sequence == link->sequence &&
                       request[TVMT_FRAME_VERSION_AT] == TVMT_FRAME_VERSION;
  if (!repeated) {
    const int32_t result = answer_request(link, session, sequence, size);
    memcpy(answer, request, TVMT_FRAME_HEADER_BYTES);
    answer[TVMT_FRAME_KIND_AT] = (uint8_t)(result < 0 ? TVMT_LINK_ERROR : request[TVMT_FRAME_KIND_AT] | TVMT_LINK_ANSWER);
    link->answer_bytes = result < 0 ? 4u : (uint32_t)result;
    if (result < 0) {
      tvmt_put_u32(&answer[TVMT_FRAME_HEADER_BYTES], (uint32_t)-result);
    }
  }
  return tvmt_frame_send(answer, link->answer_bytes, config->write, config->context);
}

int tvmt_link_init(tvmt_link *link, const tvmt_link_config *config) {
  if (config->frame_bytes < TVMT_LINK_LEAST_FRAME) {
    return -1;
  }
  memset(link, 0, sizeof *link);
  link->config = config;
  link->input_bytes = total_bytes(config->model->inputs, config->model->n_inputs);
  link->output_bytes = total_bytes(config->model->outputs, config->model->n_outputs);
  tvmt_frame_reader_init(&link->reader, config->received, config->frame_bytes);
  return 0;
}

int tvmt_link_receive(tvmt_link *link, const uint8_t *bytes, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    const uint32_t size = tvmt_frame_receive(&link->reader, bytes[i]);
    const int failed = size != 0u ? answer_frame(link, size) : 0;
    if (failed != 0) {
      return failed;
    }
  }
  return 0;
}
