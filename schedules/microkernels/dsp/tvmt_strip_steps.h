/* The steps of tvmt_strip.h on a core that issues one instruction a cycle: the fewest instructions, loads by LDM. */
#ifndef TVMT_STRIP_STEPS_H
#define TVMT_STRIP_STEPS_H

#include "tvmt_assembly.h"
#include "tvmt_features.h"
#include "tvmt_knobs.h"

/* Words of the strip that the loop has read beyond the next step when it compares with the strip's end. */
#define TVMT_STRIP_AHEAD(rows) 0

/* Steps to leave out of the first turn of the loop. */
#define TVMT_STRIP_SKIP(steps) (-(steps) & (TVMT_STRIP_STEPS - 1))

#if TVMT_DSP

/* Steps of four elements. r0: strip; r1: column; r2, r3: its even and odd lanes; r4 to r9: accumulators; r10 to lr
 * (r9 to lr for five rows): lanes of the strip. Every instruction has four bytes. */
#define TVMT_STEP_COLUMN      \
  "ldr.w r2, [r1], #4\n\t"    \
  "sxtb16 r3, r2, ror #8\n\t" \
  "sxtb16 r2, r2\n\t"
#define TVMT_STEP_TWO_ROWS(FIRST, SECOND)                   \
  "ldm.w r0!, {r10, r11, r12, lr}\n\t"                      \
  "smlad " FIRST ", r10, r2, " FIRST "\n\t"                 \
  "smlad " SECOND ", r12, r2, " SECOND "\n\t"               \
  "smlad " FIRST ", r11, r3, " FIRST "\n\t"                 \
  "smlad " SECOND ", lr, r3, " SECOND "\n\t"
#define TVMT_STEP_ONE_ROW(ROW)                \
  "ldm.w r0!, {r10, r11}\n\t"                 \
  "smlad " ROW ", r10, r2, " ROW "\n\t"       \
  "smlad " ROW ", r11, r3, " ROW "\n\t"
#define TVMT_STEP_1 TVMT_STEP_COLUMN TVMT_STEP_ONE_ROW("r4")
#define TVMT_STEP_2 TVMT_STEP_COLUMN TVMT_STEP_TWO_ROWS("r4", "r5")
#define TVMT_STEP_3 TVMT_STEP_2 TVMT_STEP_ONE_ROW("r6")
#define TVMT_STEP_4 TVMT_STEP_2 TVMT_STEP_TWO_ROWS("r6", "r7")
#define TVMT_STEP_5                           \
  TVMT_STEP_COLUMN                            \
  "ldm.w r0!, {r9, r10, r11, r12, lr}\n\t"    \
  "smlad r4, r9, r2, r4\n\t"                  \
  "smlad r5, r11, r2, r5\n\t"                 \
  "smlad r6, lr, r2, r6\n\t"                  \
  "smlad r4, r10, r3, r4\n\t"                 \
  "smlad r5, r12, r3, r5\n\t"                 \
  "ldm.w r0!, {r9, r10, r11, r12, lr}\n\t"    \
  "smlad r6, r9, r3, r6\n\t"                  \
  "smlad r7, r10, r2, r7\n\t"                 \
  "smlad r8, r12, r2, r8\n\t"                 \
  "smlad r7, r11, r3, r7\n\t"                 \
  "smlad r8, lr, r3, r8\n\t"
#define TVMT_STEP_6 TVMT_STEP_4 TVMT_STEP_TWO_ROWS("r8", "r9")

#define TVMT_STRIP_EIGHT(STEP) STEP STEP STEP STEP STEP STEP STEP STEP
#if TVMT_STRIP_STEPS == 4
#define TVMT_STRIP_TURN(STEP) STEP STEP STEP STEP
#elif TVMT_STRIP_STEPS == 8
#define TVMT_STRIP_TURN(STEP) TVMT_STRIP_EIGHT(STEP)
#elif TVMT_STRIP_STEPS == 16
#define TVMT_STRIP_TURN(STEP) TVMT_STRIP_EIGHT(STEP) TVMT_STRIP_EIGHT(STEP)
#elif TVMT_STRIP_STEPS == 32
#define TVMT_STRIP_TURN(STEP) \
  TVMT_STRIP_EIGHT(STEP) TVMT_STRIP_EIGHT(STEP) TVMT_STRIP_EIGHT(STEP) TVMT_STRIP_EIGHT(STEP)
#else
#error "TVMT_STRIP_STEPS must be 4, 8, 16 or 32"
#endif

/* A turn, entered in its middle when the number of steps is not a multiple of its own. */
#define TVMT_STRIP_LOOP(LABEL, STEP)                              \
  LABEL ":\n\t" TVMT_STRIP_TURN(STEP)                             \
  "ldr r2, [sp, #80]\n\t" /* the strip's end */                   \
  "cmp r0, r2\n\t"                                                \
  "bne.w " LABEL "b\n\t"                                          \
  "ldr.w pc, [sp, #4]\n"

/* Offsets and bytes of a step for 1 to 6 rows, at 0 and 14 of the table; what follows it. A column enters the first
 * step. */
#define TVMT_STRIP_TABLE \
  ".short 0, 11f - 9b, 12f - 9b, 13f - 9b, 14f - 9b, 15f - 9b, 16f - 9b\n\t" \
  ".byte 0, 24, 32, 44, 52, 60, 72, 0\n\t"
#define TVMT_STRIP_MORE_TABLE
#define TVMT_STRIP_ENTER
/* This core gains nothing from finishes stage by stage (dual_issue/tvmt_strip_staged.h). */
#define TVMT_STRIP_SELECT
#define TVMT_STRIP_STAGED_TABLE
#define TVMT_STRIP_STAGED_CODE
#define TVMT_STRIP_LOOPS \
  TVMT_STRIP_LOOP("11", TVMT_STEP_1) \
  TVMT_STRIP_LOOP("12", TVMT_STEP_2) \
  TVMT_STRIP_LOOP("13", TVMT_STEP_3) \
  TVMT_STRIP_LOOP("14", TVMT_STEP_4) \
  TVMT_STRIP_LOOP("15", TVMT_STEP_5) \
  TVMT_STRIP_LOOP("16", TVMT_STEP_6)

#endif

#endif
