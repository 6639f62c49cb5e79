/* Audio front end on the device: 16-bit PCM in, a row of int8 log-mel energies or cepstral coefficients a frame out.
 *
 * Samples are pushed as they come, in pieces of any length. A frame is the last `window` samples, every `hop` of them:
 *
 *   pre-emphasis -> window -> Fourier transform -> power -> mel filters -> logarithm -> [cosine transform] -> int8
 *
 * All in integers. A frame is scaled to the full range of 32 bits before the transform, so that a quiet one is as
 * precise as a loud one. Everything that depends on the model's parameters lies in constant tables that
 * `tvmtiny compile --features` writes; they name the stages of the transform and the last step, so that what no table
 * names is not linked. The caller owns all memory: no malloc, no recursion, no writable globals. C11 and C++.
 */
#ifndef TVMT_AUDIO_H
#define TVMT_AUDIO_H

#include "tvmt_fft.h"
#include "tvmt_rows.h"
#include "tvmt_scale.h"

#ifdef __cplusplus
extern "C" {
#endif

enum tvmt_audio_status {
  TVMT_AUDIO_OK = 0,
  TVMT_AUDIO_ERROR_NULL = -1, /* a pointer is null */
  TVMT_AUDIO_ERROR_SHORT = -2 /* padding by reflection needs more than half a window of samples */
};

/* What stands before the first sample and, after tvmt_audio_finish, behind the last. */
enum tvmt_audio_padding {
  TVMT_PAD_NONE = 0,   /* nothing: the first frame begins with the first sample */
  TVMT_PAD_ZERO = 1,   /* half a window of zeros: the first frame has the first sample in its middle */
  TVMT_PAD_REFLECT = 2 /* likewise, of the samples mirrored at the first and at the last one */
};

/* Triangles that overlap by half: a frequency between two neighbouring peaks counts for the one above it with its
 * weight, and for the one below it with the rest of 1. */
typedef struct {
  const uint16_t *weight; /* of 65536, a frequency */
  const uint16_t *bins;   /* [filters + 1] frequencies below the first peak, between two, above the last */
  const int32_t *offset;  /* [filters] added to the logarithm, or NULL: `shared_offset` is */
  int32_t shared_offset;  /* 65536ths of log2 */
  int32_t floor;          /* of the logarithm, with its offset: 65536ths of log2 */
  int32_t centre;         /* the logarithm that becomes 0; 65536ths of log2 */
  uint16_t first;         /* frequency, as a bin of the transform */
  uint8_t filters;
  uint8_t shift;          /* of the logarithm to 16 bits */
} tvmt_mel;

typedef struct {
  const tvmt_complex *turns;  /* [fft / 4] cosine and sine of 2 pi k / fft from k = 1 on, in units of 2**-31 */
  const uint16_t *order;      /* [fft / 2] where each pair of samples goes */
  const tvmt_fft_stage *stages;
  const int32_t *window;      /* [length / 2 + 1] weights, in units of 2**-31; the rest is their mirror image */
  const uint32_t *log2;       /* [33] 65536 log2(1 + i / 32) */
  tvmt_mel mel;
  tvmt_scale_rows scale;      /* logarithms to int8 */
  tvmt_scale_function finish; /* how: tvmt_scale_each, tvmt_scale_sums */
  uint16_t length;            /* samples of a window, even, at most fft */
  uint16_t fft;
  uint16_t hop;               /* samples from frame to frame */
  uint16_t pre_emphasis;      /* 32768ths of the sample before that are taken off a sample */
  uint8_t n_stages;
  uint8_t peak_bits;          /* bits, sign excluded, that the largest sample has before the transform */
  uint8_t padding;            /* enum tvmt_audio_padding */
} tvmt_audio_tables;

/* Audio on its way; contents are private. Its memory: [length + 1] samples, [fft / 2 + 1] bins and [filters]
 * logarithms. The generated header has a type of the right size. */
typedef struct {
  const tvmt_audio_tables *tables;
  tvmt_rows *rows;   /* where frames go */
  int16_t *samples;  /* the last ones, and one before them, in a ring */
  tvmt_bin *bins;
  int16_t *log_mel;
  uint32_t size;     /* of the ring */
  uint32_t place;    /* where in the ring the next sample goes */
  uint32_t missing;  /* samples to the next frame */
  uint32_t received; /* samples so far; stays at the largest number that it holds */
} tvmt_audio;

/* Begin a stream. `rows` is one that has begun too. Returns TVMT_AUDIO_OK or a negative status. */
int tvmt_audio_init(tvmt_audio *state, const tvmt_audio_tables *tables, tvmt_rows *rows, int16_t *samples,
                    tvmt_bin *bins, int16_t *log_mel);

/* The next samples, up to the one that completes a window of rows.
 * Returns how many samples were taken: call again with the rest. */
size_t tvmt_audio_push(tvmt_audio *state, const int16_t *pcm, size_t count);

/* End the stream: the frames that padding completes. Returns TVMT_AUDIO_OK or a negative status.
 * Where these complete several windows of rows (a stride below half a window of samples), only the last can be read. */
int tvmt_audio_finish(tvmt_audio *state);

/* For tvmt_audio.c: the powers of the frequencies, in place of windowed samples. The first fft / 2 bins hold pairs of
 * samples in the order of the tables. Returns the sum of the powers (that in the middle counts twice), below 2**63. */
uint64_t tvmt_audio_power(const tvmt_audio_tables *tables, tvmt_bin *bins);

/* For tvmt_audio.c: logarithms of the filters' energies.
 *   total  what tvmt_audio_power returned
 *   left   bits by which the samples were shifted left */
void tvmt_audio_log_mel(const tvmt_audio_tables *tables, const tvmt_bin *bins, uint64_t total, int32_t left,
                        int16_t *log_mel);

#ifdef __cplusplus
}
#endif

#endif
