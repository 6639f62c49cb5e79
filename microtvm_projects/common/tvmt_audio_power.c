/* Powers of the frequencies of real samples, by a transform of half as many points.
 *
 * The pairs of samples are taken as complex numbers. With Z their transform and n their number, the transform of the
 * samples is X[k] = E + O and X[n - k] = conj(E - O), where E = (Z[k] + conj Z[n - k]) / 2 and
 * O = (Z[k] - conj Z[n - k]) / 2 turned by -i exp(-i pi k / n). Both are needed at the same time, and their powers go
 * where Z[k] and Z[n - k] were.
 */
#include "tvmt_audio.h"

static uint64_t power(int32_t re, int32_t im) { return (uint64_t)((int64_t)re * re + (int64_t)im * im); }

static uint64_t split(tvmt_bin *bins, uint32_t points, const tvmt_complex *turns) {
  const tvmt_complex zero = bins[0].value;
  bins[0].power = power(zero.re + zero.im, 0);
  bins[points].power = power(zero.re - zero.im, 0);
  uint64_t total = bins[0].power + bins[points].power;
  for (uint32_t k = 1; k <= points / 2U; k++) {
    const tvmt_complex a = bins[k].value, b = bins[points - k].value;
    const tvmt_complex turn = turns[k - 1U];
    const int32_t even_re = (a.re + b.re) >> 1, even_im = (a.im - b.im) >> 1;
    const int32_t re = a.re - b.re, im = a.im + b.im;
    const int32_t odd_re = tvmt_multiply_high_add(tvmt_multiply_high(-re, turn.im), im, turn.re);
    const int32_t odd_im = tvmt_multiply_high_add(tvmt_multiply_high(im, turn.im), re, turn.re);
    bins[k].power = power(even_re + odd_re, even_im - odd_im);
    bins[points - k].power = power(even_re - odd_re, even_im + odd_im);
    total += bins[k].power + bins[points - k].power;
  }
  return total;
}

TVMT_CODE_SECTION uint64_t tvmt_audio_power(const tvmt_audio_tables *tables, tvmt_bin *bins) {
  const uint32_t points = tables->fft / 2U;
  for (uint32_t i = 0; i < tables->n_stages; i++) {
    const tvmt_fft_stage *stage = &tables->stages[i];
    stage->radix(bins, points, stage->m, stage->turns);
  }
  return split(bins, points, tables->turns);
}
