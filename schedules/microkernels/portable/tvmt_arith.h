/* Fixed-point primitives, the same bits on every core; docs/integer-arithmetic.md derives them.
 *
 * Relied on beside the standard, as gcc and clang define them for every target: right shift of a negative number is
 * arithmetic, and conversion to a narrower signed type keeps the low bits. Left shifts and sums that may wrap are made
 * in unsigned arithmetic, which is defined.
 */
#ifndef TVMT_ARITH_H
#define TVMT_ARITH_H

#include "tvmt_features.h"
#include "tvmt_platform.h"

/* ARMv6-M and ARMv8-M Baseline have no 32 x 32 -> 64 bit multiplication. */
#ifndef TVMT_NARROW_MULTIPLY
#if defined(__ARM_ARCH_6M__) || defined(__ARM_ARCH_8M_BASE__)
#define TVMT_NARROW_MULTIPLY 1
#else
#define TVMT_NARROW_MULTIPLY 0
#endif
#endif

/* SSAT and USAT: ARMv7-M on, also without the DSP extension. */
#if defined(__ARM_FEATURE_SAT)
#define TVMT_SATURATE 1
#else
#define TVMT_SATURATE 0
#endif

/* value * 2**shift modulo 2**32; shift 0 to 31. */
TVMT_INLINE int32_t tvmt_shift_left(int32_t value, int32_t shift) {
  return (int32_t)((uint32_t)value << shift);
}

/* Sum modulo 2**32: an accumulator may pass through a wrapped value on its way to a result that fits. */
TVMT_INLINE int32_t tvmt_add(int32_t a, int32_t b) {
  return (int32_t)((uint32_t)a + (uint32_t)b);
}

/* (value * multiplier + 2**31) >> 32, the result of SMMULR on ARMv7E-M; from -2**30 to 2**30. */
TVMT_INLINE int32_t tvmt_multiply_high(int32_t value, int32_t multiplier) {
#if TVMT_DSP
  int32_t high;
  __asm__("smmulr %0, %1, %2" : "=r"(high) : "r"(value), "r"(multiplier));
  return high;
#elif TVMT_NARROW_MULTIPLY
  const int32_t value_high = value >> 16, multiplier_high = multiplier >> 16;
  const int32_t value_low = (int32_t)((uint32_t)value & 0xFFFFU);
  const int32_t multiplier_low = (int32_t)((uint32_t)multiplier & 0xFFFFU);
  const uint32_t low = (uint32_t)value_low * (uint32_t)multiplier_low;
  const int32_t cross0 = value_high * multiplier_low, cross1 = value_low * multiplier_high;
  /* Bits 16 to 33 of the low three products, with 2**31 for rounding. */
  const uint32_t carry = (low >> 16) + ((uint32_t)cross0 & 0xFFFFU) + ((uint32_t)cross1 & 0xFFFFU) + 0x8000U;
  return value_high * multiplier_high + (cross0 >> 16) + (cross1 >> 16) + (int32_t)(carry >> 16);
#else
  const int64_t product = (int64_t)value * multiplier;
  return (int32_t)(product >> 32) + (int32_t)((uint32_t)product >> 31);
#endif
}

/* addend + tvmt_multiply_high(value, multiplier): SMMLAR on ARMv7E-M; |addend| < 2**30. */
TVMT_INLINE int32_t tvmt_multiply_high_add(int32_t addend, int32_t value, int32_t multiplier) {
#if TVMT_DSP
  int32_t sum;
  __asm__("smmlar %0, %1, %2, %3" : "=r"(sum) : "r"(value), "r"(multiplier), "r"(addend));
  return sum;
#else
  return addend + tvmt_multiply_high(value, multiplier);
#endif
}

TVMT_INLINE int32_t tvmt_clamp(int32_t value, int32_t low, int32_t high) {
  const int32_t raised = value < low ? low : value;
  return raised > high ? high : raised;
}

TVMT_INLINE int8_t tvmt_saturate_s8(int32_t value) {
#if TVMT_SATURATE
  int32_t out;
  __asm__("ssat %0, #8, %1" : "=r"(out) : "r"(value));
  return (int8_t)out;
#else
  return (int8_t)tvmt_clamp(value, INT8_MIN, INT8_MAX);
#endif
}

TVMT_INLINE int16_t tvmt_saturate_s16(int32_t value) {
#if TVMT_SATURATE
  int32_t out;
  __asm__("ssat %0, #16, %1" : "=r"(out) : "r"(value));
  return (int16_t)out;
#else
  return (int16_t)tvmt_clamp(value, INT16_MIN, INT16_MAX);
#endif
}

/* Clamp to 0..255. */
TVMT_INLINE int32_t tvmt_saturate_u8(int32_t value) {
#if TVMT_SATURATE
  int32_t out;
  __asm__("usat %0, #8, %1" : "=r"(out) : "r"(value));
  return out;
#else
  return tvmt_clamp(value, 0, UINT8_MAX);
#endif
}

/* Clamp value >> 8 to int8: one instruction with a barrel shifter. */
TVMT_INLINE int8_t tvmt_shift_saturate_s8(int32_t value) {
#if TVMT_SATURATE
  int32_t out;
  __asm__("ssat %0, #8, %1, asr #8" : "=r"(out) : "r"(value));
  return (int8_t)out;
#else
  return tvmt_saturate_s8(value >> 8);
#endif
}

/* clamp8(multiply_high(value << shift, multiplier) + zero_point); value << shift must fit 32 bits. */
TVMT_INLINE int8_t tvmt_requantize_s8(int32_t value, int32_t multiplier, int32_t shift, int32_t zero_point) {
  return tvmt_saturate_s8(tvmt_multiply_high_add(zero_point, tvmt_shift_left(value, shift), multiplier));
}

/* High word of the 64-bit product. */
TVMT_INLINE uint32_t tvmt_multiply_high_u32(uint32_t a, uint32_t b) { return (uint32_t)(((uint64_t)a * b) >> 32); }

/* Leading zero bits of a positive number. */
TVMT_INLINE int32_t tvmt_leading_zeros_u64(uint64_t value) {
  const uint32_t high = (uint32_t)(value >> 32);
  return high != 0U ? __builtin_clz(high) : 32 + __builtin_clz((uint32_t)value);
}

#endif
