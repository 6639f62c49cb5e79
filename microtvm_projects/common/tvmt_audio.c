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

/* Pre-emphasized and windowed samples on their way to the transform. */
typedef struct {
  const int16_t *from, *end, *start; /* the next sample, and the ring */
  const int32_t *weight;
  int32_t before;   /* the sample before */
  int32_t emphasis; /* 32768ths of it that are taken off */
  uint32_t bits;    /* a number with the bits of all values so far */
} weighing;

/* The next value, in units of 2**-14 of a sample; the weight after it is `step` further on. */
TVMT_INLINE int32_t weigh(weighing *w, int32_t step) {
  const int32_t sample = *w->from++;
  w->from = w->from == w->end ? w->start : w->from;
  const int32_t value = tvmt_multiply_high(sample * 32768 - w->before * w->emphasis, *w->weight);
  w->weight += step;
  w->before = sample;
  w->bits |= (uint32_t)(value ^ (value >> 31));
  return value;
}

/* `count` pairs of values, to the places that `order` has. */
TVMT_INLINE void weigh_pairs(weighing *w, tvmt_bin *bins, const uint16_t *order, uint32_t count, int32_t step) {
  for (const uint16_t *end = &order[count]; order < end; order++) {
    const int32_t re = weigh(w, step);
    const tvmt_complex pair = {re, weigh(w, step)};
    bins[*order].value = pair;
  }
}

/* The frame's samples in pairs, zeros behind them; returns a number with the bits of all. */
static uint32_t weigh_frame(const tvmt_audio *state) {
  const tvmt_audio_tables *tables = state->tables;
  const uint32_t pairs = tables->length / 2U, rising = (pairs + 1U) / 2U;
  const int16_t *end = &state->samples[state->size], *oldest = &state->samples[state->place];
  weighing w = {oldest + 1 == end ? state->samples : oldest + 1, end, state->samples, tables->window, *oldest,
                tables->pre_emphasis, 0};
  weigh_pairs(&w, state->bins, tables->order, rising, 1);
  w.weight = &tables->window[2U * (pairs - rising)];
  weigh_pairs(&w, state->bins, &tables->order[rising], pairs - rising, -1);
  for (uint32_t i = pairs; i < tables->fft / 2U; i++) {
    const tvmt_complex zero = {0, 0};
    state->bins[tables->order[i]].value = zero;
  }
  return w.bits;
}

/* Shift all points so that the largest has peak_bits; returns by how many bits to the left. */
static int32_t normalize(const tvmt_audio_tables *tables, tvmt_bin *bins, uint32_t bits) {
  const tvmt_bin *end = &bins[tables->fft / 2U];
  const int32_t left = tables->peak_bits - (bits == 0U ? 0 : 32 - __builtin_clz(bits));
  if (left > 0) {
    for (tvmt_bin *bin = bins; bin < end; bin++) {
      const tvmt_complex point = {tvmt_shift_left(bin->value.re, left), tvmt_shift_left(bin->value.im, left)};
      bin->value = point;
    }
  } else if (left < 0) {
    const int32_t half = 1 << (-left - 1);
    for (tvmt_bin *bin = bins; bin < end; bin++) {
      const tvmt_complex point = {(bin->value.re + half) >> -left, (bin->value.im + half) >> -left};
      bin->value = point;
    }
  }
  return left;
}

TVMT_CODE_SECTION static void compute_frame(tvmt_audio *state) {
  const tvmt_audio_tables *tables = state->tables;
  const int32_t left = normalize(tables, state->bins, weigh_frame(state));
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
