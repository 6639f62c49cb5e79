/* A stage of radix 3. */
#include "tvmt_fft.h"

#define SINE 1859775393 /* 2**31 sin(pi / 3) */

void tvmt_fft_radix3(tvmt_bin *bins, uint32_t points, uint32_t m, uint32_t step, const tvmt_turns *turns) {
  for (uint32_t j = 0; j < m; j++) {
    for (tvmt_bin *at = &bins[j]; at < &bins[points]; at += 3U * m) {
      const tvmt_complex a = tvmt_complex_half(at[0].value);
      const tvmt_complex b = tvmt_fft_input(at, 1, m, j * step, turns);
      const tvmt_complex c = tvmt_fft_input(at, 2, m, j * step, turns);
      const tvmt_complex sum = tvmt_complex_add(b, c);
      const tvmt_complex middle = tvmt_complex_subtract(a, tvmt_complex_half(sum));
      const tvmt_complex side = tvmt_complex_scale(tvmt_complex_subtract(b, c), SINE);
      at[0].value = tvmt_complex_add(a, sum);
      at[m].value = tvmt_complex_subtract_turned(middle, side);
      at[2U * m].value = tvmt_complex_add_turned(middle, side);
    }
  }
}
