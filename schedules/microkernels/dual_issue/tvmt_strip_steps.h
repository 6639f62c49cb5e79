/* The steps of tvmt_strip.h on a core that issues two instructions a cycle (Cortex-M7): a SMLAD in every cycle.
 *
 * Beside each SMLAD goes a load, an extension or nothing. What is loaded can be used two cycles later, so a step loads
 * what the next one begins with, and the last step of a column stands alone: nothing behind the strip or the column is
 * read.
 */
#ifndef TVMT_STRIP_STEPS_H
#define TVMT_STRIP_STEPS_H

#include "tvmt_assembly.h"
#include "tvmt_features.h"
#include "tvmt_knobs.h"
#include "tvmt_strip_staged.h"

/* Words of the strip that the loop has read beyond the next step when it compares with the strip's end, which for it is
 * the last step. */
#define TVMT_STRIP_AHEAD(rows) (2 * (rows) - ((rows) > 3 ? 3 : (rows) > 1 ? 4 : 2))

/* Steps to leave out of the first turn of the loop; all of them lead to its end. */
#define TVMT_STRIP_SKIP(steps) (TVMT_STRIP_STEPS - (((steps)-1) & (TVMT_STRIP_STEPS - 1)))

#if TVMT_DSP

/* Steps of four elements. r0: strip; r1: column; r2: its even lanes; r3: its odd lanes, before them its word (r7 for
 * less than four rows); r4 to r9: accumulators; the others: lanes of the strip. A step of four rows or more begins with
 * r10, r11: row 0, r12: the even lanes of row 1; one of less with r8 to r11: rows 0 and 1. Every instruction has four
 * bytes. NEXT stands before what only the next step needs. */
#define TVMT_STEP_ROWS_0_1(NEXT_PAIR, LAST_PAIR)  \
  "smlad r4, r10, r2, r4\n\t"                     \
  "sxtb16 r3, r3, ror #8\n\t"                     \
  "smlad r5, r12, r2, r5\n\t"                     \
  "ldr.w lr, [r0], #4\n\t"                        \
  "smlad r4, r11, r3, r4\n\t"                     \
  "ldrd " NEXT_PAIR ", [r0], #8\n\t"              \
  "smlad r5, lr, r3, r5\n\t"                      \
  "ldrd " LAST_PAIR ", [r0], #8\n\t"
/* The last two rows, in r11 (even) and r10 (odd), lr (even) and r12 (odd). */
#define TVMT_STEP_LAST_ROWS(FIRST, SECOND, NEXT)  \
  "smlad " FIRST ", r10, r3, " FIRST "\n\t"       \
  NEXT("ldr.w r10, [r0], #4\n\t")                 \
  "smlad " SECOND ", r12, r3, " SECOND "\n\t"     \
  NEXT("ldr.w r3, [r1], #4\n\t")                  \
  "smlad " FIRST ", r11, r2, " FIRST "\n\t"       \
  NEXT("ldrd r11, r12, [r0], #8\n\t")             \
  "smlad " SECOND ", lr, r2, " SECOND "\n\t"      \
  NEXT("sxtb16 r2, r3\n\t")
#define TVMT_STEP_4(NEXT)                         \
  TVMT_STEP_ROWS_0_1("r11, r10", "lr, r12")       \
  TVMT_STEP_LAST_ROWS("r6", "r7", NEXT)
#define TVMT_STEP_5(NEXT)                         \
  TVMT_STEP_ROWS_0_1("r9, r12", "r11, r10")       \
  "smlad r6, r12, r3, r6\n\t"                     \
  "ldrd lr, r12, [r0], #8\n\t"                    \
  "smlad r6, r9, r2, r6\n\t"                      \
  TVMT_STEP_LAST_ROWS("r7", "r8", NEXT)
#define TVMT_STEP_6(NEXT)                         \
  TVMT_STEP_ROWS_0_1("r10, r11", "r12, lr")       \
  "smlad r6, r10, r2, r6\n\t"                     \
  "smlad r6, r11, r3, r6\n\t"                     \
  "ldrd r11, r10, [r0], #8\n\t"                   \
  "smlad r7, r12, r2, r7\n\t"                     \
  "smlad r7, lr, r3, r7\n\t"                      \
  "ldrd lr, r12, [r0], #8\n\t"                    \
  TVMT_STEP_LAST_ROWS("r8", "r9", NEXT)
#define TVMT_STEP_3(NEXT)                         \
  "smlad r4, r8, r2, r4\n\t"                      \
  "sxtb16 r3, r7, ror #8\n\t"                     \
  "smlad r5, r10, r2, r5\n\t"                     \
  "ldrd r12, lr, [r0], #8\n\t"                    \
  "smlad r4, r9, r3, r4\n\t"                      \
  NEXT("ldrd r8, r9, [r0], #8\n\t")               \
  "smlad r6, r12, r2, r6\n\t"                     \
  NEXT("ldr.w r7, [r1], #4\n\t")                  \
  "smlad r5, r11, r3, r5\n\t"                     \
  NEXT("ldrd r10, r11, [r0], #8\n\t")             \
  "smlad r6, lr, r3, r6\n\t"                      \
  NEXT("sxtb16 r2, r7\n\t")
#define TVMT_STEP_2(NEXT)                         \
  "smlad r4, r8, r2, r4\n\t"                      \
  "sxtb16 r3, r7, ror #8\n\t"                     \
  "smlad r5, r10, r2, r5\n\t"                     \
  NEXT("ldr.w r7, [r1], #4\n\t")                  \
  "smlad r4, r9, r3, r4\n\t"                      \
  NEXT("ldrd r8, r9, [r0], #8\n\t")               \
  "smlad r5, r11, r3, r5\n\t"                     \
  NEXT("ldrd r10, r11, [r0], #8\n\t")             \
  NEXT("sxtb16 r2, r7\n\t")
#define TVMT_STEP_1(NEXT)                         \
  "sxtb16 r3, r7, ror #8\n\t"                     \
  "smlad r4, r8, r2, r4\n\t"                      \
  NEXT("ldr.w r7, [r1], #4\n\t")                  \
  "smlad r4, r9, r3, r4\n\t"                      \
  NEXT("ldrd r8, r9, [r0], #8\n\t")               \
  NEXT("sxtb16 r2, r7\n\t")

#define TVMT_STEP_MORE(TEXT) TEXT
#define TVMT_STEP_END(TEXT)

#define TVMT_STRIP_FOUR(STEP) STEP(TVMT_STEP_MORE) STEP(TVMT_STEP_MORE) STEP(TVMT_STEP_MORE) STEP(TVMT_STEP_MORE)
#if TVMT_STRIP_STEPS == 4
#define TVMT_STRIP_TURN(STEP) TVMT_STRIP_FOUR(STEP)
#elif TVMT_STRIP_STEPS == 8
#define TVMT_STRIP_TURN(STEP) TVMT_STRIP_FOUR(STEP) TVMT_STRIP_FOUR(STEP)
#elif TVMT_STRIP_STEPS == 16
#define TVMT_STRIP_TURN(STEP) TVMT_STRIP_FOUR(STEP) TVMT_STRIP_FOUR(STEP) TVMT_STRIP_FOUR(STEP) TVMT_STRIP_FOUR(STEP)
#elif TVMT_STRIP_STEPS == 32
#define TVMT_STRIP_TURN(STEP)                                                                  \
  TVMT_STRIP_FOUR(STEP) TVMT_STRIP_FOUR(STEP) TVMT_STRIP_FOUR(STEP) TVMT_STRIP_FOUR(STEP)      \
  TVMT_STRIP_FOUR(STEP) TVMT_STRIP_FOUR(STEP) TVMT_STRIP_FOUR(STEP) TVMT_STRIP_FOUR(STEP)
#else
#error "TVMT_STRIP_STEPS must be 4, 8, 16 or 32"
#endif

/* What a column begins with (its word may be loaded already), a turn of steps that may be entered anywhere, also at
 * their end, and the last step. */
#define TVMT_STRIP_LOOP(START, LABEL, ROWS, WORD, STEP)                 \
  START ":\n\t"                                                         \
  "ldr.w r2, [r1], #4\n\t"                                              \
  "ldm.w r0!, {" ROWS "}\n\t"                                           \
  "mov.w " WORD ", r2\n\t"                                              \
  "sxtb16 r2, r2\n\t"                                                   \
  "ldr.w pc, [sp, #108]\n"                                              \
  LABEL ":\n\t"                                                         \
  TVMT_STRIP_TURN(STEP)                                                 \
  "ldr.w lr, [sp, #80]\n\t" /* the last step */                         \
  "cmp r0, lr\n\t"                                                      \
  "bne.w " LABEL "b\n\t"                                                \
  STEP(TVMT_STEP_END)                                                   \
  "ldr.w pc, [sp, #4]\n"

/* Loops of 1 to 6 rows; bytes of a step. */
#define TVMT_STRIP_TABLE                                                       \
  ".short 0, 11f - 9b, 12f - 9b, 13f - 9b, 14f - 9b, 15f - 9b, 16f - 9b\n\t"   \
  ".byte 0, 24, 36, 48, 64, 76, 88, 0\n\t"
/* Where their columns begin. */
#define TVMT_STRIP_MORE_TABLE ".short 51f - 9b, 52f - 9b, 53f - 9b, 54f - 9b, 55f - 9b, 56f - 9b\n\t"
/* r10: the first step becomes where a column begins; r2: table; r4: rows; r9: code that offsets count from. */
#define TVMT_STRIP_ENTER                   \
  "str r10, [sp, #108]\n\t"                \
  "add r3, r2, #40\n\t"                    \
  "ldrh r10, [r3, r4, lsl #1]\n\t"         \
  "add r10, r10, r9\n\t"
#define TVMT_STRIP_LOOPS                                            \
  TVMT_STRIP_LOOP("51", "11", "r8, r9", "r7", TVMT_STEP_1)          \
  TVMT_STRIP_LOOP("52", "12", "r8, r9, r10, r11", "r7", TVMT_STEP_2) \
  TVMT_STRIP_LOOP("53", "13", "r8, r9, r10, r11", "r7", TVMT_STEP_3) \
  TVMT_STRIP_LOOP("54", "14", "r10, r11, r12", "r3", TVMT_STEP_4)   \
  TVMT_STRIP_LOOP("55", "15", "r10, r11, r12", "r3", TVMT_STEP_5)   \
  TVMT_STRIP_LOOP("56", "16", "r10, r11, r12", "r3", TVMT_STEP_6)

#endif

#endif
