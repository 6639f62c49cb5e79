/* Samples to frames: a ring of the last ones, windowed when a frame is complete. */
#include "tvmt_audio.h"

int tvmt_audio_init(tvmt_audio *state, const tvmt_audio_tables *tables, tvmt_rows *rows, int16_t *samples,
                    tvmt_bin *bins, int16_t *log_mel) {
  if (state == NULL || tables == NULL || rows == NULL || samples == NULL || bins == NULL || log_mel == NULL) {
    return TVMT_AUDIO_ERROR_NULL;
  }
  memset(state, 0, sizeof *state);
  state->tables = tables;
  state->rows = rows;
  state->samples = samples;
  state->bins = bins;
  state->log_mel = log_mel;
  state->size = tables->length + 1U;
  state->missing = tables->padding == TVMT_PAD_NONE ? tables->length : tables->length / 2U;
  memset(samples, 0, state->size * sizeof *samples);
  return TVMT_AUDIO_OK;
}

/* Pre-emphasized and windowed samples in pairs, in units of 2**-14 of a sample; returns a number with their bits. */
static uint32_t weigh(const tvmt_audio *state) {
  const tvmt_audio_tables *tables = state->tables;
  const int32_t *weight = tables->window;
  uint32_t bits = 0, place = state->place;
  int32_t before = state->samples[place];
  for (uint32_t i = 0; i < tables->length; i++) {
    place = place + 1U == state->size ? 0U : place + 1U;
    const int32_t sample = state->samples[place];
    const int32_t value = tvmt_multiply_high(sample * 32768 - before * (int32_t)tables->pre_emphasis, *weight);
    tvmt_complex *pair = &state->bins[tables->order[i >> 1]].value;
    if ((i & 1U) == 0U) {
      pair->re = value;
    } else {
      pair->im = value;
    }
    bits |= (uint32_t)(value ^ (value >> 31));
    before = sample;
    weight += i < tables->length / 2U ? 1 : -1;
  }
  return bits;
}

/* Shift all points so that the largest has peak_bits; returns by how many bits to the left. */
static int32_t normalize(const tvmt_audio *state, uint32_t bits) {
  const uint32_t points = state->tables->fft / 2U;
  const int32_t left = state->tables->peak_bits - (bits == 0U ? 0 : 32 - __builtin_clz(bits));
  for (uint32_t i = 0; left > 0 && i < points; i++) {
    tvmt_complex *point = &state->bins[i].value;
    point->re = tvmt_shift_left(point->re, left);
    point->im = tvmt_shift_left(point->im, left);
  }
  for (uint32_t i = 0; left < 0 && i < points; i++) {
    tvmt_complex *point = &state->bins[i].value;
    point->re >>= -left;
    point->im >>= -left;
  }
  return left;
}

TVMT_CODE_SECTION static void compute_frame(tvmt_audio *state) {
  const tvmt_audio_tables *tables = state->tables;
  for (uint32_t i = tables->length / 2U; i < tables->fft / 2U; i++) {
    const tvmt_complex zero = {0, 0};
    state->bins[tables->order[i]].value = zero;
  }
  const int32_t left = normalize(state, weigh(state));
  const uint64_t total = tvmt_audio_power(tables, state->bins);
  tvmt_audio_log_mel(tables, state->bins, total, left, state->log_mel);
  tables->finish(&tables->scale, state->rows->phase, state->log_mel, tvmt_rows_next(state->rows));
  tvmt_rows_added(state->rows);
}

/* The mirror image of the first half window of samples, before them. The sample at the other end of the window, which
 * has not come yet, has the weight zero. */
static void reflect_start(const tvmt_audio *state) {
  for (uint32_t i = 1; i < state->tables->length / 2U; i++) {
    state->samples[state->size - i] = state->samples[i];
  }
}

/* Up to `missing` samples into the ring, from a place in it on. */
static size_t take(tvmt_audio *state, const int16_t *pcm, size_t count) {
  const size_t room = state->size - state->place;
  size_t taken = count < state->missing ? count : state->missing;
  taken = taken < room ? taken : room;
  memcpy(&state->samples[state->place], pcm, taken * sizeof *pcm);
  state->place = state->place + taken == state->size ? 0U : state->place + (uint32_t)taken;
  state->missing -= (uint32_t)taken;
  state->received = taken > UINT32_MAX - state->received ? UINT32_MAX : state->received + (uint32_t)taken;
  return taken;
}

/* Compute a frame if its last sample has come; returns whether it had. */
static int complete(tvmt_audio *state) {
  const tvmt_audio_tables *tables = state->tables;
  if (state->missing != 0U) {
    return 0;
  }
  if (tables->padding == TVMT_PAD_REFLECT && state->received == tables->length / 2U) {
    reflect_start(state);
  }
  compute_frame(state);
  state->missing = tables->hop;
  return 1;
}

size_t tvmt_audio_push(tvmt_audio *state, const int16_t *pcm, size_t count) {
  size_t taken = 0;
  int full = 0;
  while (taken < count && full == 0) {
    taken += take(state, &pcm[taken], count - taken);
    full = complete(state) != 0 && tvmt_rows_ready(state->rows);
  }
  return taken;
}

/* The sample that stands `back` before the next one. */
static int16_t earlier(const tvmt_audio *state, uint32_t back) {
  return state->samples[(state->place + state->size - back) % state->size];
}

int tvmt_audio_finish(tvmt_audio *state) {
  const tvmt_audio_tables *tables = state->tables;
  const uint32_t half = tables->length / 2U;
  const int reflect = tables->padding == TVMT_PAD_REFLECT;
  if (reflect && state->received <= half) {
    return TVMT_AUDIO_ERROR_SHORT;
  }
  for (uint32_t i = 0; tables->padding != TVMT_PAD_NONE && i < half; i++) {
    /* The mirror of a sample i behind the last is i + 1 before it. */
    const int16_t sample = (int16_t)(reflect ? earlier(state, 2U * (i + 1U)) : 0);
    (void)take(state, &sample, 1);
    (void)complete(state);
  }
  return TVMT_AUDIO_OK;
}
