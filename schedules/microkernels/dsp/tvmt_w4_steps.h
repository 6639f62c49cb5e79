/* The steps of tvmt_w4.h for four rows on a core that issues one instruction a cycle: the fewest instructions. */
#ifndef TVMT_W4_STEPS_H
#define TVMT_W4_STEPS_H

#include "tvmt_features.h"

#if TVMT_DSP

/* r0: strip; r1: column; r2: scales; r3: mask of two weights; r4 to r7: sums of a group; r8 to r11: lanes of the strip;
 * r12: lanes of the column; lr: a word of it. Stack: 0 scales at the column's start, 4 acc, 8 saved registers, 44 end of
 * the strip's whole groups, 48 words of a shorter last group. */
#define TVMT_W4_LANES_OF_FOUR(SHIFTED)      \
  "and r12, r3, lr" SHIFTED "\n\t"          \
  "ldm.w r0!, {r8-r11}\n\t"                 \
  "smlad r4, r8, r12, r4\n\t"               \
  "smlad r5, r9, r12, r5\n\t"               \
  "smlad r6, r10, r12, r6\n\t"              \
  "smlad r7, r11, r12, r7\n\t"
#define TVMT_W4_WORD_OF_FOUR                \
  "ldr.w lr, [r1], #4\n\t"                  \
  TVMT_W4_LANES_OF_FOUR("")                 \
  TVMT_W4_LANES_OF_FOUR(", lsr #4")         \
  TVMT_W4_LANES_OF_FOUR(", lsr #8")         \
  TVMT_W4_LANES_OF_FOUR(", lsr #12")
#define TVMT_W4_GROUP_OF_FOUR TVMT_W4_WORD_OF_FOUR TVMT_W4_WORD_OF_FOUR TVMT_W4_WORD_OF_FOUR TVMT_W4_WORD_OF_FOUR
#define TVMT_W4_START_OF_FOUR "ldm.w r0!, {r4-r7}\n\t"
#define TVMT_W4_END_OF_FOUR                 \
  "ldrb r12, [r2], #1\n\t"                  \
  "ldr lr, [sp, #4]\n\t"                    \
  "ldm.w lr, {r8-r11}\n\t"                  \
  "mla r8, r4, r12, r8\n\t"                 \
  "mla r9, r5, r12, r9\n\t"                 \
  "mla r10, r6, r12, r10\n\t"               \
  "mla r11, r7, r12, r11\n\t"               \
  "stm.w lr, {r8-r11}\n\t"

#endif

#endif
