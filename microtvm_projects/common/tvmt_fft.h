/* Fourier transform in integers, in place, of any number of points that is a product of 2, 3, 4 and 5.
 *
 * Decimation in time: the samples lie in the order of their reversed digits, then a stage a factor combines blocks of m
 * points into blocks of radix * m. Each stage but the first halves its inputs, so that values grow by r / 2 at most in a
 * stage of radix r, by r in the first: the caller leaves headroom for all stages. Products are rounded to 32 bits with tvmt_multiply_high: the same
 * bits on every core. A stage is a function in a C file of its own; constant tables name those that a length needs.
 */
#ifndef TVMT_FFT_H
#define TVMT_FFT_H

#include "tvmt_arith.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  int32_t re, im;
} tvmt_complex;

/* A point of the transform, and in its place later the power of a frequency. */
typedef union {
  tvmt_complex value;
  uint64_t power;
} tvmt_bin;

/* Combine all blocks of m points.
 *   points  of the transform
 *   turns   for each point of a block but the first, cosine and sine of the angles of its radix - 1 twiddle factors,
 *           in units of 2**-31 */
typedef void (*tvmt_fft_radix)(tvmt_bin *bins, uint32_t points, uint32_t m, const tvmt_complex *turns);

void tvmt_fft_radix2(tvmt_bin *bins, uint32_t points, uint32_t m, const tvmt_complex *turns);
void tvmt_fft_radix3(tvmt_bin *bins, uint32_t points, uint32_t m, const tvmt_complex *turns);
void tvmt_fft_radix4(tvmt_bin *bins, uint32_t points, uint32_t m, const tvmt_complex *turns);
void tvmt_fft_radix5(tvmt_bin *bins, uint32_t points, uint32_t m, const tvmt_complex *turns);

typedef struct {
  tvmt_fft_radix radix;
  const tvmt_complex *turns; /* NULL if m is 1 */
  uint16_t m;
} tvmt_fft_stage;

TVMT_INLINE tvmt_complex tvmt_complex_add(tvmt_complex a, tvmt_complex b) {
  const tvmt_complex sum = {a.re + b.re, a.im + b.im};
  return sum;
}

TVMT_INLINE tvmt_complex tvmt_complex_subtract(tvmt_complex a, tvmt_complex b) {
  const tvmt_complex difference = {a.re - b.re, a.im - b.im};
  return difference;
}

/* a + i b; a - i b is tvmt_complex_subtract_turned. */
TVMT_INLINE tvmt_complex tvmt_complex_add_turned(tvmt_complex a, tvmt_complex b) {
  const tvmt_complex sum = {a.re - b.im, a.im + b.re};
  return sum;
}

TVMT_INLINE tvmt_complex tvmt_complex_subtract_turned(tvmt_complex a, tvmt_complex b) {
  const tvmt_complex difference = {a.re + b.im, a.im - b.re};
  return difference;
}

TVMT_INLINE tvmt_complex tvmt_complex_half(tvmt_complex a) {
  const tvmt_complex half = {a.re >> 1, a.im >> 1};
  return half;
}

/* Input of a butterfly without a twiddle factor. Halves are rounded to even numbers: rounded down they would add up, as
 * these inputs all count for the lowest frequencies. */
TVMT_INLINE tvmt_complex tvmt_fft_straight(tvmt_complex a, uint32_t m) {
  const tvmt_complex half = {(a.re + ((a.re >> 1) & 1)) >> 1, (a.im + ((a.im >> 1) & 1)) >> 1};
  return m == 1U ? a : half;
}

/* 2 a factor / 2**32, |a| < 2**30: the product with a factor in units of 2**-31. */
TVMT_INLINE tvmt_complex tvmt_complex_scale(tvmt_complex a, int32_t factor) {
  const tvmt_complex product = {tvmt_multiply_high(2 * a.re, factor), tvmt_multiply_high(2 * a.im, factor)};
  return product;
}

/* Half of a, turned by an angle of which `turn` has cosine and sine: a (cos - i sin) / 2. */
TVMT_INLINE tvmt_complex tvmt_complex_turn(tvmt_complex a, tvmt_complex turn) {
  const tvmt_complex product = {tvmt_multiply_high_add(tvmt_multiply_high(a.im, turn.im), a.re, turn.re),
                                tvmt_multiply_high_add(tvmt_multiply_high(a.im, turn.re), -a.re, turn.im)};
  return product;
}

#ifdef __cplusplus
}
#endif

#endif
