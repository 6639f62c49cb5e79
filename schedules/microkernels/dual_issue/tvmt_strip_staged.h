/* What becomes of the sums of a column and five or six rows, stage by stage, and the beginning of the next column: on a
 * core that issues two instructions a cycle no multiplication waits for the one before, and beside each goes a saturation
 * or a store. In tvmt_strip.h every row ends its three instructions first, for any number of rows with one code, which
 * is also taken where a column's depth is no multiple of four.
 */
#ifndef TVMT_STRIP_STAGED_H
#define TVMT_STRIP_STAGED_H

#include "tvmt_knobs.h"

#if TVMT_STRIP_STAGED

/* r2: table; r4: rows; r8: elements behind the whole words of a column; r3: where in the table the finishes are. */
#define TVMT_STRIP_SELECT               \
  "cmp r8, #0\n\t"                      \
  "bne 92f\n\t"                         \
  "cmp r4, #5\n\t"                      \
  "blo 92f\n\t"                         \
  "add r3, r2, r4, lsl #3\n\t"          \
  "add r3, r3, #14\n"                   \
  "92:\n\t"

/* Behind the 54 bytes of the table before: S8, S32, RAW and ROW_S8 of five rows and of six. */
#define TVMT_STRIP_STAGED_TABLE                                    \
  ".short 60f - 9b, 61f - 9b, 62f - 9b, 63f - 9b\n\t"              \
  ".short 64f - 9b, 65f - 9b, 66f - 9b, 67f - 9b\n\t"

/* FIVE, SIX: what only the sixth row needs stands in SIX. */
#define TVMT_STAGED_SIX(TEXT) TEXT
#define TVMT_STAGED_FIVE(TEXT)

/* On to the next column: r2, r3 are loaded and r10 is set before. */
#define TVMT_STAGED_NEXT(HEAD)              \
  "add r1, r1, r3\n\t"                      \
  "subs r12, r12, #1\n\t"                   \
  "strd r10, r12, [sp, #56]\n\t"            \
  "bne.w " HEAD "\n\t"                      \
  "add sp, #16\n\t"                         \
  "pop {r4-r12, pc}\n"
/* The beginning of a column with a bias and of one without: sums, and what the first step finds in registers. */
#define TVMT_STAGED_BEGIN                   \
  "70:\n\t"                                 \
  "ldr.w r2, [sp, #8]\n\t"                  \
  "ldr.w r3, [r1], #4\n\t"                  \
  "ldr.w r4, [r2], #4\n\t"                  \
  "ldr.w r0, [sp]\n\t"                      \
  "str.w r2, [sp, #8]\n\t"                  \
  "mov.w r5, r4\n\t"                        \
  "ldrd r10, r11, [r0], #8\n\t"             \
  "mov.w r6, r4\n\t"                        \
  "ldr.w r12, [r0], #4\n\t"                 \
  "mov.w r7, r4\n\t"                        \
  "sxtb16 r2, r3\n\t"                       \
  "mov.w r8, r4\n\t"                        \
  "mov.w r9, r4\n\t"                        \
  "ldr.w pc, [sp, #108]\n"                  \
  "71:\n\t"                                 \
  "ldr.w r0, [sp]\n\t"                      \
  "movs r4, #0\n\t"                         \
  "ldr.w r3, [r1], #4\n\t"                  \
  "movs r5, #0\n\t"                         \
  "ldrd r10, r11, [r0], #8\n\t"             \
  "movs r6, #0\n\t"                         \
  "ldr.w r12, [r0], #4\n\t"                 \
  "movs r7, #0\n\t"                         \
  "sxtb16 r2, r3\n\t"                       \
  "mov.w r8, r4\n\t"                        \
  "mov.w r9, r4\n\t"                        \
  "ldr.w pc, [sp, #108]\n"

#define TVMT_STAGED_S8(LABEL, SIX)          \
  LABEL ":\n\t"                             \
  "ldr.w r0, [sp, #12]\n\t"                 \
  "ldr.w r3, [sp, #68]\n\t"                 \
  "ldr.w r2, [r0], #4\n\t"                  \
  "ldrd r10, r12, [sp, #56]\n\t"            \
  "smmlar r4, r4, r2, r3\n\t"               \
  "str.w r0, [sp, #12]\n\t"                 \
  "smmlar r5, r5, r2, r3\n\t"               \
  "ldr.w r11, [sp, #64]\n\t"                \
  "smmlar r6, r6, r2, r3\n\t"               \
  "ssat r4, #8, r4\n\t"                     \
  "smmlar r7, r7, r2, r3\n\t"               \
  "ssat r5, #8, r5\n\t"                     \
  "smmlar r8, r8, r2, r3\n\t"               \
  "strb.w r4, [r10]\n\t"                    \
  SIX("smmlar r9, r9, r2, r3\n\t")          \
  "strb.w r5, [r10, r11]\n\t"               \
  "ssat r6, #8, r6\n\t"                     \
  "add lr, r11, r11, lsl #1\n\t"            \
  "ldrd r2, r3, [sp, #72]\n\t"              \
  "ssat r7, #8, r7\n\t"                     \
  "strb.w r6, [r10, r11, lsl #1]\n\t"       \
  "add lr, lr, r10\n\t"                     \
  "strb.w r7, [lr]\n\t"                     \
  "ssat r8, #8, r8\n\t"                     \
  "add r10, r10, r2\n\t"                    \
  SIX("ssat r9, #8, r9\n\t")                \
  "strb.w r8, [lr, r11]\n\t"                \
  SIX("strb.w r9, [lr, r11, lsl #1]\n\t")   \
  TVMT_STAGED_NEXT("70b")

#define TVMT_STAGED_S32(LABEL, SIX)         \
  LABEL ":\n\t"                             \
  "ldr.w r0, [sp, #12]\n\t"                 \
  "ldrd r10, r12, [sp, #56]\n\t"            \
  "ldr.w r2, [r0], #4\n\t"                  \
  "ldr.w r11, [sp, #64]\n\t"                \
  "smmulr r4, r4, r2\n\t"                   \
  "str.w r0, [sp, #12]\n\t"                 \
  "smmulr r5, r5, r2\n\t"                   \
  "add lr, r11, r11, lsl #1\n\t"            \
  "smmulr r6, r6, r2\n\t"                   \
  "str.w r4, [r10]\n\t"                     \
  "smmulr r7, r7, r2\n\t"                   \
  "str.w r5, [r10, r11]\n\t"                \
  "smmulr r8, r8, r2\n\t"                   \
  "str.w r6, [r10, r11, lsl #1]\n\t"        \
  SIX("smmulr r9, r9, r2\n\t")              \
  "ldrd r2, r3, [sp, #72]\n\t"              \
  "add lr, lr, r10\n\t"                     \
  "str.w r7, [lr]\n\t"                      \
  "add r10, r10, r2\n\t"                    \
  "str.w r8, [lr, r11]\n\t"                 \
  SIX("str.w r9, [lr, r11, lsl #1]\n\t")    \
  TVMT_STAGED_NEXT("70b")

#define TVMT_STAGED_ROW_S8(LABEL, SIX, LAST)  \
  LABEL ":\n\t"                             \
  "ldr.w r0, [sp, #12]\n\t"                 \
  "ldr.w r3, [sp, #68]\n\t"                 \
  "ldrd r2, lr, [r0]\n\t"                   \
  "ldrd r10, r12, [sp, #56]\n\t"            \
  "smmlar r4, r4, r2, r3\n\t"               \
  "ldr.w r11, [sp, #64]\n\t"                \
  "smmlar r5, r5, lr, r3\n\t"               \
  "ldrd r2, lr, [r0, #8]\n\t"               \
  "ssat r4, #8, r4\n\t"                     \
  "strb.w r4, [r10]\n\t"                    \
  "smmlar r6, r6, r2, r3\n\t"               \
  "ssat r5, #8, r5\n\t"                     \
  "smmlar r7, r7, lr, r3\n\t"               \
  LAST "\n\t"                               \
  "ssat r6, #8, r6\n\t"                     \
  "strb.w r5, [r10, r11]\n\t"               \
  "smmlar r8, r8, r2, r3\n\t"               \
  "ssat r7, #8, r7\n\t"                     \
  SIX("smmlar r9, r9, lr, r3\n\t")          \
  "strb.w r6, [r10, r11, lsl #1]\n\t"       \
  "add lr, r11, r11, lsl #1\n\t"            \
  "ldrd r2, r3, [sp, #72]\n\t"              \
  "add lr, lr, r10\n\t"                     \
  "ssat r8, #8, r8\n\t"                     \
  "strb.w r7, [lr]\n\t"                     \
  SIX("ssat r9, #8, r9\n\t")                \
  "strb.w r8, [lr, r11]\n\t"                \
  "add r10, r10, r2\n\t"                    \
  SIX("strb.w r9, [lr, r11, lsl #1]\n\t")   \
  TVMT_STAGED_NEXT("71b")

#define TVMT_STAGED_RAW(LABEL, SIX)         \
  LABEL ":\n\t"                             \
  "ldrd r10, r12, [sp, #56]\n\t"            \
  "ldr.w r11, [sp, #64]\n\t"                \
  "str.w r4, [r10]\n\t"                     \
  "ldrd r2, r3, [sp, #72]\n\t"              \
  "add lr, r11, r11, lsl #1\n\t"            \
  "str.w r5, [r10, r11]\n\t"                \
  "add lr, lr, r10\n\t"                     \
  "str.w r6, [r10, r11, lsl #1]\n\t"        \
  "str.w r7, [lr]\n\t"                      \
  "add r10, r10, r2\n\t"                    \
  "str.w r8, [lr, r11]\n\t"                 \
  SIX("str.w r9, [lr, r11, lsl #1]\n\t")    \
  TVMT_STAGED_NEXT("71b")

#define TVMT_STRIP_STAGED_CODE                                                  \
  TVMT_STAGED_BEGIN                                                             \
  TVMT_STAGED_S8("60", TVMT_STAGED_FIVE)                                        \
  TVMT_STAGED_S32("61", TVMT_STAGED_FIVE)                                       \
  TVMT_STAGED_RAW("62", TVMT_STAGED_FIVE)                                       \
  TVMT_STAGED_ROW_S8("63", TVMT_STAGED_FIVE, "ldr.w r2, [r0, #16]")             \
  TVMT_STAGED_S8("64", TVMT_STAGED_SIX)                                         \
  TVMT_STAGED_S32("65", TVMT_STAGED_SIX)                                        \
  TVMT_STAGED_RAW("66", TVMT_STAGED_SIX)                                        \
  TVMT_STAGED_ROW_S8("67", TVMT_STAGED_SIX, "ldrd r2, lr, [r0, #16]")

#else

#define TVMT_STRIP_SELECT
#define TVMT_STRIP_STAGED_TABLE
#define TVMT_STRIP_STAGED_CODE

#endif

#endif
