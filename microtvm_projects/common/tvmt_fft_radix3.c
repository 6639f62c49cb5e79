/* A stage of radix 3. */
#include "tvmt_fft.h"

#define SINE 1859775393 /* 2**31 sin(pi / 3) */

TVMT_INLINE void butterfly(tvmt_bin *at, uint32_t m, tvmt_complex a, tvmt_complex b, tvmt_complex c) {
  const tvmt_complex sum = tvmt_complex_add(b, c);
  const tvmt_complex middle = tvmt_complex_subtract(a, tvmt_complex_half(sum));
  const tvmt_complex side = tvmt_complex_scale(tvmt_complex_subtract(b, c), SINE);
  at[0].value = tvmt_complex_add(a, sum);
  at[m].value = tvmt_complex_subtract_turned(middle, side);
  at[2U * m].value = tvmt_complex_add_turned(middle, side);
}

TVMT_CODE_SECTION void tvmt_fft_radix3(tvmt_bin *bins, uint32_t points, uint32_t m, const tvmt_complex *turns) {
  for (tvmt_bin *block = bins; block < &bins[points]; block += 3U * m) {
    const tvmt_complex *turn = turns;
    tvmt_bin *at = block;
    butterfly(at, m, tvmt_fft_straight(at[0].value, m), tvmt_fft_straight(at[m].value, m),
              tvmt_fft_straight(at[2U * m].value, m));
    while (++at < &block[m]) {
      butterfly(at, m, tvmt_complex_half(at[0].value), tvmt_complex_turn(at[m].value, turn[0]),
                tvmt_complex_turn(at[2U * m].value, turn[1]));
      turn += 2;
    }
  }
}
