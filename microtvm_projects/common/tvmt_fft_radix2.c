/* A stage of radix 2. */
#include "tvmt_fft.h"

TVMT_INLINE void butterfly(tvmt_bin *at, uint32_t m, tvmt_complex a, tvmt_complex b) {
  at[0].value = tvmt_complex_add(a, b);
  at[m].value = tvmt_complex_subtract(a, b);
}

TVMT_CODE_SECTION void tvmt_fft_radix2(tvmt_bin *bins, uint32_t points, uint32_t m, const tvmt_complex *turns) {
  for (tvmt_bin *block = bins; block < &bins[points]; block += 2U * m) {
    const tvmt_complex *turn = turns;
    tvmt_bin *at = block;
    butterfly(at, m, tvmt_fft_straight(at[0].value, m), tvmt_fft_straight(at[m].value, m));
    while (++at < &block[m]) {
      butterfly(at, m, tvmt_complex_half(at[0].value), tvmt_complex_turn(at[m].value, *turn++));
    }
  }
}
