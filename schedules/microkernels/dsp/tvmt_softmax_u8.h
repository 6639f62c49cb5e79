/* Softmax of attention scores to unnormalised uint8 exponentials and the sum of each row. */
#ifndef TVMT_SOFTMAX_U8_H
#define TVMT_SOFTMAX_U8_H

#include "tvmt_simd.h"

/* max(largest, the scores of `blocks` > 0 groups of four). */
TVMT_INLINE int32_t tvmt_max_fours(const int32_t *score, int32_t blocks, int32_t largest) {
  const int32_t *end = score + 4 * blocks;
#if TVMT_DSP
  int32_t s0, s1, s2, s3;
  /* A branch that is rarely taken costs one instruction where a conditional move costs two. */
  __asm__ volatile(
      "1:\n\t"
      "ldrd %[s0], %[s1], [%[score]], #8\n\t"
      "ldrd %[s2], %[s3], [%[score]], #8\n\t"
      "cmp %[s0], %[largest]\n\t"
      "bgt 5f\n"
      "2:\n\t"
      "cmp %[s1], %[largest]\n\t"
      "bgt 6f\n"
      "3:\n\t"
      "cmp %[s2], %[largest]\n\t"
      "bgt 7f\n"
      "4:\n\t"
      "cmp %[s3], %[largest]\n\t"
      "bgt 8f\n\t"
      "cmp %[score], %[end]\n\t"
      "bne 1b\n\t"
      "b 9f\n"
      "5:\n\t"
      "mov %[largest], %[s0]\n\t"
      "b 2b\n"
      "6:\n\t"
      "mov %[largest], %[s1]\n\t"
      "b 3b\n"
      "7:\n\t"
      "mov %[largest], %[s2]\n\t"
      "b 4b\n"
      "8:\n\t"
      "mov %[largest], %[s3]\n\t"
      "cmp %[score], %[end]\n\t"
      "bne 1b\n"
      "9:"
      : [score] "+&r"(score), [largest] "+&r"(largest), [s0] "=&r"(s0), [s1] "=&r"(s1), [s2] "=&r"(s2),
        [s3] "=&r"(s3)
      : [end] "r"(end)
      : "cc", "memory");
#else
  for (; score != end; score++) {
    largest = *score > largest ? *score : largest;
  }
#endif
  return largest;
}

/* table[min(255, multiply_high(largest - score, multiplier))] of `blocks` > 0 groups of four; returns their sum. */
TVMT_INLINE int32_t tvmt_exp_fours(const int32_t *score, const uint8_t *table, uint8_t *p, int32_t blocks,
                                   int32_t largest, int32_t multiplier) {
  const int32_t *end = score + 4 * blocks;
  int32_t sum = 0;
#if TVMT_DSP
  int32_t s0, s1, s2, s3;
  __asm__ volatile(
      "1:\n\t"
      "ldrd %[s0], %[s1], [%[score]], #8\n\t"
      "ldrd %[s2], %[s3], [%[score]], #8\n\t"
      "sub %[s0], %[largest], %[s0]\n\t"
      "sub %[s1], %[largest], %[s1]\n\t"
      "sub %[s2], %[largest], %[s2]\n\t"
      "sub %[s3], %[largest], %[s3]\n\t"
      "smmulr %[s0], %[s0], %[multiplier]\n\t"
      "smmulr %[s1], %[s1], %[multiplier]\n\t"
      "smmulr %[s2], %[s2], %[multiplier]\n\t"
      "smmulr %[s3], %[s3], %[multiplier]\n\t"
      "usat %[s0], #8, %[s0]\n\t"
      "usat %[s1], #8, %[s1]\n\t"
      "usat %[s2], #8, %[s2]\n\t"
      "usat %[s3], #8, %[s3]\n\t"
      "ldrb %[s0], [%[table], %[s0]]\n\t"
      "ldrb %[s1], [%[table], %[s1]]\n\t"
      "ldrb %[s2], [%[table], %[s2]]\n\t"
      "ldrb %[s3], [%[table], %[s3]]\n\t"
      "orr %[s0], %[s0], %[s1], lsl #8\n\t"
      "orr %[s2], %[s2], %[s3], lsl #8\n\t"
      "orr %[s0], %[s0], %[s2], lsl #16\n\t"
      "str %[s0], [%[p]], #4\n\t"
      "mov %[s1], #0\n\t" /* no register left to keep it in when there is a frame pointer */
      "usada8 %[sum], %[s0], %[s1], %[sum]\n\t"
      "cmp %[score], %[end]\n\t"
      "bne 1b"
      : [score] "+&r"(score), [p] "+&r"(p), [sum] "+&r"(sum), [s0] "=&r"(s0), [s1] "=&r"(s1), [s2] "=&r"(s2),
        [s3] "=&r"(s3)
      : [end] "r"(end), [table] "r"(table), [largest] "r"(largest), [multiplier] "r"(multiplier)
      : "cc", "memory");
#else
  while (score != end) {
    const uint8_t value = table[tvmt_saturate_u8(tvmt_multiply_high(largest - *score++, multiplier))];
    *p++ = value;
    sum += value;
  }
#endif
  return sum;
}

/* p[i * p_stride + j] = table[min(255, multiply_high((max - score) << shift, multiplier))]; row_sum[i] = sum_j p.
 *
 * scores: rows of `cols` >= 1 int32, (max - score) << shift must fit 31 bits. multiplier: not negative. table: 256
 * uint8, table[0] = 255. Strides in elements. p must not overlap scores, with one exception: p may be the scores'
 * own memory when p_stride is 4 * scores_stride. Elements are then written behind those that have been read: keep the
 * order.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_softmax_u8(const int32_t *scores, const uint8_t *table, uint8_t *p,
                                                     int32_t *row_sum, int32_t rows, int32_t cols,
                                                     int32_t scores_stride, int32_t p_stride, int32_t multiplier,
                                                     int32_t shift) {
  const int32_t blocks = cols >> 2;
  for (int32_t i = 0; i < rows; i++) {
    const int32_t *score = scores + i * scores_stride;
    uint8_t *y = p + i * p_stride;
    int32_t largest = score[0], sum = 0, j = 0;
    for (int32_t k = 4 * blocks; k < cols; k++) {
      largest = score[k] > largest ? score[k] : largest;
    }
    if (blocks > 0) {
      largest = tvmt_max_fours(score, blocks, largest);
    }
    /* The general loop shifts; a shift of 0 is the common one. */
    if (blocks > 0 && shift == 0) {
      sum = tvmt_exp_fours(score, table, y, blocks, largest, multiplier);
      j = 4 * blocks;
    }
    for (; j < cols; j++) {
      const int32_t distance = tvmt_shift_left(largest - score[j], shift);
      const uint8_t value = table[tvmt_saturate_u8(tvmt_multiply_high(distance, multiplier))];
      y[j] = value;
      sum += value;
    }
    row_sum[i] = sum;
  }
}

#endif
