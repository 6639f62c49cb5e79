/* Operations on two 16-bit lanes of a word, by the DSP extension or in plain C.
 *
 * A word of four bytes becomes two words of lanes: its even bytes and its odd bytes. Both operands of a dot product
 * are split the same way, so the order of the sum's terms does not matter.
 */
#ifndef TVMT_SIMD_H
#define TVMT_SIMD_H

#include "tvmt_arith.h"

/* Four bytes from any address. */
TVMT_INLINE uint32_t tvmt_load_word(const void *from) {
  uint32_t word;
  memcpy(&word, from, sizeof word);
  return word;
}

#if !TVMT_DSP
/* Lanes of the byte at bit 0 and the byte at bit 16, sign extended. */
TVMT_INLINE uint32_t tvmt_lanes_s8(uint32_t word) {
  return ((uint32_t)(int32_t)(int8_t)word & 0xFFFFU) | (uint32_t)(int32_t)(int8_t)(word >> 16) << 16;
}
#endif

/* Bytes 0 and 2, sign extended to lanes. */
TVMT_INLINE uint32_t tvmt_even_s8(uint32_t word) {
#if TVMT_DSP
  uint32_t lanes;
  __asm__("sxtb16 %0, %1" : "=r"(lanes) : "r"(word));
  return lanes;
#else
  return tvmt_lanes_s8(word);
#endif
}

/* Bytes 1 and 3, sign extended to lanes. */
TVMT_INLINE uint32_t tvmt_odd_s8(uint32_t word) {
#if TVMT_DSP
  uint32_t lanes;
  __asm__("sxtb16 %0, %1, ror #8" : "=r"(lanes) : "r"(word));
  return lanes;
#else
  return tvmt_lanes_s8(word >> 8);
#endif
}

/* Bytes 0 and 2, zero extended to lanes. */
TVMT_INLINE uint32_t tvmt_even_u8(uint32_t word) {
#if TVMT_DSP
  uint32_t lanes;
  __asm__("uxtb16 %0, %1" : "=r"(lanes) : "r"(word));
  return lanes;
#else
  return word & 0x00FF00FFU;
#endif
}

/* Bytes 1 and 3, zero extended to lanes. */
TVMT_INLINE uint32_t tvmt_odd_u8(uint32_t word) {
#if TVMT_DSP
  uint32_t lanes;
  __asm__("uxtb16 %0, %1, ror #8" : "=r"(lanes) : "r"(word));
  return lanes;
#else
  return (word >> 8) & 0x00FF00FFU;
#endif
}

/* acc + the sum of both lanes' products, modulo 2**32. */
TVMT_INLINE int32_t tvmt_multiply_lanes(uint32_t a, uint32_t b, int32_t acc) {
#if TVMT_DSP
  int32_t sum;
  __asm__("smlad %0, %1, %2, %3" : "=r"(sum) : "r"(a), "r"(b), "r"(acc));
  return sum;
#else
  const int32_t low = (int32_t)(int16_t)a * (int16_t)b;
  const int32_t high = (int32_t)(int16_t)(a >> 16) * (int16_t)(b >> 16);
  return tvmt_add(tvmt_add(acc, low), high);
#endif
}

#endif
