/* Energies of mel filters and their logarithms. */
#include "tvmt_audio.h"

/* log2 of a positive number, in 65536ths: between the entries of a table, less than 12 of them too small. */
static int32_t log2_q16(uint64_t value, const uint32_t *table) {
  const int32_t zeros = tvmt_leading_zeros_u64(value);
  const uint64_t mantissa = value << zeros;
  const uint32_t entry = (uint32_t)(mantissa >> 58) & 31U, rest = (uint32_t)(mantissa >> 42) & 0xFFFFU;
  const uint32_t between = ((table[entry + 1U] - table[entry]) * rest) >> 16;
  return (int32_t)(((uint32_t)(63 - zeros) << 16) + table[entry] + between);
}

/* value >> right, right at most 16 */
TVMT_INLINE uint64_t shift_right(uint64_t value, int32_t right) {
  const uint32_t high = (uint32_t)(value >> 32), low = (uint32_t)value;
  return (uint64_t)(high >> right) << 32 | (low >> right | high << 1 << (31 - right));
}

/* The logarithm of an energy, with offset and floor, to 16 bits. */
static int16_t level(const tvmt_audio_tables *tables, uint32_t filter, uint64_t energy, int32_t exponent) {
  const tvmt_mel *mel = &tables->mel;
  int32_t found = mel->floor;
  if (energy != 0U) {
    const int32_t offset = mel->offset != NULL ? mel->offset[filter] : mel->shared_offset;
    const int32_t log2 = log2_q16(energy, tables->log2) - exponent * 65536 + offset;
    found = log2 > found ? log2 : found;
  }
  return (int16_t)((found - mel->centre) >> mel->shift);
}

TVMT_CODE_SECTION void tvmt_audio_log_mel(const tvmt_audio_tables *tables, const tvmt_bin *bins, uint64_t total,
                                          int32_t left, int16_t *log_mel) {
  const tvmt_mel *mel = &tables->mel;
  const uint16_t *weight = mel->weight;
  const tvmt_bin *bin = &bins[mel->first];
  /* A weight has 16 bits: 48 are left to a power, also to the sum of all. */
  const int32_t spare = total == 0U ? 16 : tvmt_leading_zeros_u64(total);
  const int32_t right = spare < 16 ? 16 - spare : 0;
  uint64_t rising = 0;
  for (uint32_t peak = 0; peak <= mel->filters; peak++) {
    const uint64_t below = rising;
    uint64_t sum = 0;
    rising = 0;
    for (const tvmt_bin *end = bin + mel->bins[peak]; bin < end; bin++) {
      const uint64_t power = shift_right(bin->power, right);
      sum += power;
      rising += power * *weight++;
    }
    if (peak > 0U) {
      log_mel[peak - 1U] = level(tables, peak - 1U, below + (sum << 16) - rising, 2 * left - right);
    }
  }
}
