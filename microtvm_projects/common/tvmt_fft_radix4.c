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

TVMT_CODE_SECTION void tvmt_fft_radix4(tvmt_bin *bins, uint32_t points, uint32_t m, const tvmt_complex *turns) {
  for (tvmt_bin *block = bins; block < &bins[points]; block += 4U * m) {
    const tvmt_complex *turn = turns;
    tvmt_bin *at = block;
    butterfly(at, m, tvmt_fft_straight(at[0].value, m), tvmt_fft_straight(at[m].value, m),
              tvmt_fft_straight(at[2U * m].value, m), tvmt_fft_straight(at[3U * m].value, m));
    while (++at < &block[m]) {
      butterfly(at, m, tvmt_complex_half(at[0].value), tvmt_complex_turn(at[m].value, turn[0]),
                tvmt_complex_turn(at[2U * m].value, turn[1]), tvmt_complex_turn(at[3U * m].value, turn[2]));
      turn += 3;
    }
  }
}
