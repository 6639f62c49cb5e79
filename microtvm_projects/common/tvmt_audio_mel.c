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

TVMT_CODE_SECTION void tvmt_audio_log_mel(const tvmt_audio_tables *tables, const tvmt_bin *bins, uint64_t total,
                                          int32_t left, int16_t *log_mel) {
  const tvmt_mel *mel = &tables->mel;
  /* A weight has 16 bits: 48 are left to a power, also to the sum of all. */
  const int32_t spare = total == 0U ? 16 : tvmt_leading_zeros_u64(total);
  const int32_t right = spare < 16 ? 16 - spare : 0;
  const int32_t exponent = 2 * left - right;
  const uint16_t *weight = mel->weight;
  const tvmt_bin *bin = &bins[mel->first];
  uint64_t rising = 0;
  for (uint32_t peak = 0; peak <= mel->filters; peak++) {
    uint64_t falling = rising;
    rising = 0;
    for (uint32_t n = mel->bins[peak]; n > 0U; n--) {
      const uint64_t power = (bin++)->power >> right, part = power * *weight++;
      rising += part;
      falling += (power << 16) - part;
    }
    if (peak > 0U) {
      int32_t level = mel->floor;
      if (falling != 0U) {
        const int32_t offset = mel->offset != NULL ? mel->offset[peak - 1U] : mel->shared_offset;
        const int32_t found = log2_q16(falling, tables->log2) - exponent * 65536 + offset;
        level = found > level ? found : level;
      }
      log_mel[peak - 1U] = (int16_t)((level - mel->centre) >> mel->shift);
    }
  }
}
