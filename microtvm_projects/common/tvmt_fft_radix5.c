/* A stage of radix 5. */
#include "tvmt_fft.h"

/* 2**31 times cosine and sine of 2 pi / 5 and of 4 pi / 5. */
#define COSINE_1 663608942
#define COSINE_2 (-1737350766)
#define SINE_1 2042378317
#define SINE_2 1262259218

/* first * x + second * y */
TVMT_INLINE tvmt_complex combine(tvmt_complex x, int32_t first, tvmt_complex y, int32_t second) {
  return tvmt_complex_add(tvmt_complex_scale(x, first), tvmt_complex_scale(y, second));
}

/* One copy in the code: it is long. */
static void butterfly(tvmt_bin *at, uint32_t m, const tvmt_complex x[5]) {
  const tvmt_complex outer = tvmt_complex_add(x[1], x[4]), inner = tvmt_complex_add(x[2], x[3]);
  const tvmt_complex outer_side = tvmt_complex_subtract(x[1], x[4]), inner_side = tvmt_complex_subtract(x[2], x[3]);
  const tvmt_complex middle_1 = tvmt_complex_add(x[0], combine(outer, COSINE_1, inner, COSINE_2));
  const tvmt_complex middle_2 = tvmt_complex_add(x[0], combine(outer, COSINE_2, inner, COSINE_1));
  const tvmt_complex side_1 = combine(outer_side, SINE_1, inner_side, SINE_2);
  const tvmt_complex side_2 = combine(outer_side, SINE_2, inner_side, -SINE_1);
  at[0].value = tvmt_complex_add(x[0], tvmt_complex_add(outer, inner));
  at[m].value = tvmt_complex_subtract_turned(middle_1, side_1);
  at[2U * m].value = tvmt_complex_subtract_turned(middle_2, side_2);
  at[3U * m].value = tvmt_complex_add_turned(middle_2, side_2);
  at[4U * m].value = tvmt_complex_add_turned(middle_1, side_1);
}

TVMT_CODE_SECTION void tvmt_fft_radix5(tvmt_bin *bins, uint32_t points, uint32_t m, const tvmt_complex *turns) {
  for (tvmt_bin *block = bins; block < &bins[points]; block += 5U * m) {
    const tvmt_complex *turn = turns;
    for (tvmt_bin *at = block; at < &block[m]; at++) {
      tvmt_complex x[5];
      x[0] = at == block ? tvmt_fft_straight(at[0].value, m) : tvmt_complex_half(at[0].value);
      for (uint32_t q = 1; q < 5U; q++) {
        x[q] = at == block ? tvmt_fft_straight(at[q * m].value, m) : tvmt_complex_turn(at[q * m].value, *turn++);
      }
      butterfly(at, m, x);
    }
  }
}
