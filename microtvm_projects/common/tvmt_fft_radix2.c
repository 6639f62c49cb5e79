/* A stage of radix 2. */
#include "tvmt_fft.h"

void tvmt_fft_radix2(tvmt_bin *bins, uint32_t points, uint32_t m, uint32_t step, const tvmt_turns *turns) {
  for (uint32_t j = 0; j < m; j++) {
    for (tvmt_bin *at = &bins[j]; at < &bins[points]; at += 2U * m) {
      const tvmt_complex a = tvmt_complex_half(at[0].value), b = tvmt_fft_input(at, 1, m, j * step, turns);
      at[0].value = tvmt_complex_add(a, b);
      at[m].value = tvmt_complex_subtract(a, b);
    }
  }
}
