/* A stage of radix 4: the one that most of the time goes into. */
#include "tvmt_fft.h"

TVMT_INLINE void butterfly(tvmt_bin *at, uint32_t m, tvmt_complex a, tvmt_complex b, tvmt_complex c, tvmt_complex d) {
  const tvmt_complex sum = tvmt_complex_add(a, c), difference = tvmt_complex_subtract(a, c);
  const tvmt_complex odd = tvmt_complex_add(b, d), side = tvmt_complex_subtract(b, d);
  at[0].value = tvmt_complex_add(sum, odd);
  at[m].value = tvmt_complex_subtract_turned(difference, side);
  at[2U * m].value = tvmt_complex_subtract(sum, odd);
  at[3U * m].value = tvmt_complex_add_turned(difference, side);
}

void tvmt_fft_radix4(tvmt_bin *bins, uint32_t points, uint32_t m, uint32_t step, const tvmt_turns *turns) {
  tvmt_bin *const end = &bins[points];
  for (tvmt_bin *at = bins; at < end; at += 4U * m) {
    butterfly(at, m, tvmt_complex_half(at[0].value), tvmt_complex_half(at[m].value),
              tvmt_complex_half(at[2U * m].value), tvmt_complex_half(at[3U * m].value));
  }
  for (uint32_t j = 1; j < m; j++) {
    const int32_t *sine = &turns->sine[j * step], *cosine = &sine[turns->quarter];
    const int32_t sine_1 = sine[0], sine_2 = sine[j * step], sine_3 = sine[2U * j * step];
    const int32_t cosine_1 = cosine[0], cosine_2 = cosine[j * step], cosine_3 = cosine[2U * j * step];
    for (tvmt_bin *at = &bins[j]; at < end; at += 4U * m) {
      butterfly(at, m, tvmt_complex_half(at[0].value), tvmt_complex_turn(at[m].value, sine_1, cosine_1),
                tvmt_complex_turn(at[2U * m].value, sine_2, cosine_2),
                tvmt_complex_turn(at[3U * m].value, sine_3, cosine_3));
    }
  }
}
