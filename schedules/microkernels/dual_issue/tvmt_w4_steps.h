/* The steps of tvmt_w4.h for four rows on a core that issues two instructions a cycle (Cortex-M7): a SMLAD in every
 * cycle, beside it a load or the lanes that the column needs next. What is loaded can be used two cycles later, so a word
 * loads what the next one of its group begins with; the last one of a group reads nothing ahead.
 */
#ifndef TVMT_W4_STEPS_H
#define TVMT_W4_STEPS_H

#include "tvmt_features.h"

#if TVMT_DSP

/* r0: strip; r1: column; r2 and r12, in turn: lanes of the column; r3: mask of two weights; r4 to r7: sums of a group; r8
 * to r11: lanes of the strip; lr: a word of the column. Stack: 0 scales, 4 acc, 8 saved registers, 44 end of the strip's
 * whole groups, 48 words of a shorter last group. */
#define TVMT_W4_LOW "ldrd r8, r9, [r0], #8\n\t"
#define TVMT_W4_HIGH "ldrd r10, r11, [r0], #8\n\t"
#define TVMT_W4_LANES_OF_FOUR(LANES, BESIDE0, BESIDE1, BESIDE2, BESIDE3)  \
  "smlad r4, r8, " LANES ", r4\n\t" BESIDE0                               \
  "smlad r5, r9, " LANES ", r5\n\t" BESIDE1                               \
  "smlad r6, r10, " LANES ", r6\n\t" BESIDE2                              \
  "smlad r7, r11, " LANES ", r7\n\t" BESIDE3
#define TVMT_W4_STEPS_OF_FOUR(NEXT)                                                                             \
  TVMT_W4_LANES_OF_FOUR("r12", "and r2, r3, lr, lsr #4\n\t", TVMT_W4_LOW, "", TVMT_W4_HIGH)                     \
  TVMT_W4_LANES_OF_FOUR("r2", "and r12, r3, lr, lsr #8\n\t", TVMT_W4_LOW, "", TVMT_W4_HIGH)                     \
  TVMT_W4_LANES_OF_FOUR("r12", "and r2, r3, lr, lsr #12\n\t", TVMT_W4_LOW, NEXT("ldr.w lr, [r1], #4\n\t"),      \
                        TVMT_W4_HIGH)                                                                           \
  TVMT_W4_LANES_OF_FOUR("r2", "", NEXT(TVMT_W4_LOW), NEXT("and r12, r3, lr\n\t"), NEXT(TVMT_W4_HIGH))
#define TVMT_W4_MORE(TEXT) TEXT
#define TVMT_W4_LAST(TEXT) ""
#define TVMT_W4_FIRST                       \
  "ldr.w lr, [r1], #4\n\t"                  \
  TVMT_W4_LOW TVMT_W4_HIGH                  \
  "and r12, r3, lr\n\t"
#define TVMT_W4_WORD_OF_FOUR TVMT_W4_FIRST TVMT_W4_STEPS_OF_FOUR(TVMT_W4_LAST)
#define TVMT_W4_GROUP_OF_FOUR                                                                               \
  TVMT_W4_FIRST TVMT_W4_STEPS_OF_FOUR(TVMT_W4_MORE) TVMT_W4_STEPS_OF_FOUR(TVMT_W4_MORE)                     \
  TVMT_W4_STEPS_OF_FOUR(TVMT_W4_MORE) TVMT_W4_STEPS_OF_FOUR(TVMT_W4_LAST)
#define TVMT_W4_START_OF_FOUR               \
  "ldrd r4, r5, [r0], #8\n\t"               \
  "ldrd r6, r7, [r0], #8\n\t"
#define TVMT_W4_END_OF_FOUR                 \
  "ldrd r2, lr, [sp]\n\t"                   \
  "ldrb r12, [r2], #1\n\t"                  \
  "ldrd r8, r9, [lr]\n\t"                   \
  "ldrd r10, r11, [lr, #8]\n\t"             \
  "str r2, [sp]\n\t"                        \
  "mla r8, r4, r12, r8\n\t"                 \
  "mla r9, r5, r12, r9\n\t"                 \
  "mla r10, r6, r12, r10\n\t"               \
  "strd r8, r9, [lr]\n\t"                   \
  "mla r11, r7, r12, r11\n\t"               \
  "strd r10, r11, [lr, #8]\n\t"

#endif

#endif
