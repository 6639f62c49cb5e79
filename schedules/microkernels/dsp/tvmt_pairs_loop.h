/* The loops of tvmt_pairs.h in assembly: they take all fourteen registers. */
#ifndef TVMT_PAIRS_LOOP_H
#define TVMT_PAIRS_LOOP_H

#include "tvmt_assembly.h"
#include "tvmt_knobs.h"
#include "tvmt_simd.h"

/* What becomes of an accumulator, acc = bias[j] + the product of a row and column j:
 *   S8         clamp8(multiply_high(acc << shift, multiplier[j]) + zero_point) as int8, two columns side by side
 *   TABLE_S8   the same, then table[that + 128]
 *   KEYS_S8    as S8, two columns at a distance of two bytes: interleaved with those of another row
 *   S32        multiply_high(acc << shift, multiplier[j]) as int32
 *   RAW        acc without a bias as int32
 *   ROW_S8     clamp8(multiply_high(acc << shift, multiplier[i]) + zero_point) as int8, acc without a bias
 */
enum {
  TVMT_PAIRS_S8 = 0,
  TVMT_PAIRS_TABLE_S8 = 1,
  TVMT_PAIRS_KEYS_S8 = 2,
  TVMT_PAIRS_S32 = 3,
  TVMT_PAIRS_RAW = 4,
  TVMT_PAIRS_ROW_S8 = 5
};

#if TVMT_DSP

/* r0: strip; r1: columns; r2, r3: lanes of both; r4 to r11: accumulators, a row's two side by side; r12, lr: lanes of
 * two rows. X0, X1, X23, W: addresses of rows 0 and 1, of rows 2 and 3, of the columns. Instructions have four bytes.
 *
 * On a Cortex-M4 single loads in a row take one cycle more than there are words, and so does each LDRD. Int8 steps load
 * three words in a row. Of two int16 steps one saves a cycle and the other two instructions. */
#define TVMT_PAIRS_PRODUCTS(X23)         \
  "smlad r4, r12, r2, r4\n\t"            \
  "smlad r5, r12, r3, r5\n\t"            \
  "smlad r6, lr, r2, r6\n\t"             \
  "smlad r7, lr, r3, r7\n\t"             \
  "ldrd r12, lr, " X23 "\n\t"            \
  "smlad r8, r12, r2, r8\n\t"            \
  "smlad r9, r12, r3, r9\n\t"            \
  "smlad r10, lr, r2, r10\n\t"           \
  "smlad r11, lr, r3, r11\n\t"
#define TVMT_PAIRS_STEP_S8(X0, X1, X23, W) \
  "ldr.w r2, " W "\n\t"                    \
  "ldr.w r12, " X0 "\n\t"                  \
  "ldr.w lr, " X1 "\n\t"                   \
  "sxtb16 r3, r2, ror #8\n\t"              \
  "sxtb16 r2, r2\n\t" TVMT_PAIRS_PRODUCTS(X23)
#define TVMT_PAIRS_STEP_S16(X01, X23, W)   \
  "ldrd r2, r3, " W "\n\t"                 \
  "ldrd r12, lr, " X01 "\n\t" TVMT_PAIRS_PRODUCTS(X23)
#define TVMT_PAIRS_SINGLE_S16(X0, X1, X23, W0, W1)  \
  "ldr.w r2, " W0 "\n\t"                            \
  "ldr.w r3, " W1 "\n\t"                            \
  "ldr.w r12, " X0 "\n\t"                           \
  "ldr.w lr, " X1 "\n\t" TVMT_PAIRS_PRODUCTS(X23)
/* Bytes of two steps. */
enum { TVMT_PAIRS_BYTES_S8 = 2 * 56, TVMT_PAIRS_BYTES_S16 = TVMT_PAIR_SINGLE_LOADS ? 2 * 52 : 52 + 44 };

/* A turn: TVMT_PAIR_STEPS steps. Their offsets count from 8 bytes before the strip and one step before the columns, so
 * that the last step can take both pointers to the next turn. FROM: steps of the turn before; X, W: bytes from there. */
#define TVMT_PAIRS_AT_S8(FROM, X, W)                                                                                \
  TVMT_PAIRS_STEP_S8("[r0, #16 * " #FROM " + " #X "]", "[r0, #16 * " #FROM " + " #X " + 4]",                        \
                     "[r0, #16 * " #FROM " + " #X " + 8]", "[r1, #4 * " #FROM " + " #W "]")
#define TVMT_PAIRS_AT_S16(FROM, X, W)                                                                               \
  TVMT_PAIRS_STEP_S16("[r0, #16 * " #FROM " + " #X "]", "[r0, #16 * " #FROM " + " #X " + 8]",                       \
                      "[r1, #8 * " #FROM " + 2 * " #W "]")
#define TVMT_PAIRS_SINGLE_AT_S16(FROM, X, W)                                                                        \
  TVMT_PAIRS_SINGLE_S16("[r0, #16 * " #FROM " + " #X "]", "[r0, #16 * " #FROM " + " #X " + 4]",                     \
                        "[r0, #16 * " #FROM " + " #X " + 8]", "[r1, #8 * " #FROM " + 2 * " #W "]",                  \
                        "[r1, #8 * " #FROM " + 2 * " #W " + 4]")
#define TVMT_PAIRS_LAST_S8(FROM)                                                                                    \
  TVMT_PAIRS_STEP_S8("[r0, #16 * " #FROM " + 120]", "[r0, #16 * " #FROM " + 124]", "[r0, #16 * " #FROM " + 128]!",  \
                     "[r1, #4 * " #FROM " + 32]!")
/* The last step updates both pointers in LDRD, whose offsets reach farther than those of an LDR that updates one. */
#define TVMT_PAIRS_LAST_S16(FROM)                                                                                   \
  TVMT_PAIRS_STEP_S16("[r0, #16 * " #FROM " + 120]", "[r0, #16 * " #FROM " + 128]!", "[r1, #8 * " #FROM " + 64]!")
#if TVMT_PAIR_SINGLE_LOADS
#define TVMT_PAIRS_EVEN_AT_S16 TVMT_PAIRS_SINGLE_AT_S16
#else
#define TVMT_PAIRS_EVEN_AT_S16 TVMT_PAIRS_AT_S16
#endif
#define TVMT_PAIRS_SEVEN(ODD, EVEN, FROM)                                                                           \
  ODD(FROM, 8, 4) EVEN(FROM, 24, 8) ODD(FROM, 40, 12) EVEN(FROM, 56, 16) ODD(FROM, 72, 20) EVEN(FROM, 88, 24)       \
  ODD(FROM, 104, 28)
#define TVMT_PAIRS_EIGHT(ODD, EVEN, FROM) TVMT_PAIRS_SEVEN(ODD, EVEN, FROM) EVEN(FROM, 120, 32)
#if TVMT_PAIR_STEPS == 8
#define TVMT_PAIRS_STEPS_BUT_ONE(ODD, EVEN) TVMT_PAIRS_SEVEN(ODD, EVEN, 0)
#define TVMT_PAIRS_LAST(STEP) STEP(0)
#elif TVMT_PAIR_STEPS == 16
#define TVMT_PAIRS_STEPS_BUT_ONE(ODD, EVEN) TVMT_PAIRS_EIGHT(ODD, EVEN, 0) TVMT_PAIRS_SEVEN(ODD, EVEN, 8)
#define TVMT_PAIRS_LAST(STEP) STEP(8)
#elif TVMT_PAIR_STEPS == 32
#define TVMT_PAIRS_STEPS_BUT_ONE(ODD, EVEN)                                                                         \
  TVMT_PAIRS_EIGHT(ODD, EVEN, 0) TVMT_PAIRS_EIGHT(ODD, EVEN, 8) TVMT_PAIRS_EIGHT(ODD, EVEN, 16)                     \
  TVMT_PAIRS_SEVEN(ODD, EVEN, 24)
#define TVMT_PAIRS_LAST(STEP) STEP(24)
#elif TVMT_PAIR_STEPS == 48
#define TVMT_PAIRS_STEPS_BUT_ONE(ODD, EVEN)                                                                         \
  TVMT_PAIRS_EIGHT(ODD, EVEN, 0) TVMT_PAIRS_EIGHT(ODD, EVEN, 8) TVMT_PAIRS_EIGHT(ODD, EVEN, 16)                     \
  TVMT_PAIRS_EIGHT(ODD, EVEN, 24) TVMT_PAIRS_EIGHT(ODD, EVEN, 32) TVMT_PAIRS_SEVEN(ODD, EVEN, 40)
#define TVMT_PAIRS_LAST(STEP) STEP(40)
#else
#error "TVMT_PAIR_STEPS must be 8, 16, 32 or 48"
#endif
#define TVMT_PAIRS_TURN_S8                                                                                          \
  TVMT_PAIRS_STEPS_BUT_ONE(TVMT_PAIRS_AT_S8, TVMT_PAIRS_AT_S8) TVMT_PAIRS_LAST(TVMT_PAIRS_LAST_S8)
#define TVMT_PAIRS_TURN_S16                                                                                         \
  TVMT_PAIRS_STEPS_BUT_ONE(TVMT_PAIRS_SINGLE_AT_S16, TVMT_PAIRS_EVEN_AT_S16) TVMT_PAIRS_LAST(TVMT_PAIRS_LAST_S16)

#define TVMT_PAIRS_ALL(DO) DO("r4") DO("r5") DO("r6") DO("r7") DO("r8") DO("r9") DO("r10") DO("r11")
/* r2, r3: multipliers of both columns; r12: zero point; lr: output. */
#define TVMT_PAIRS_COLUMN_MULTIPLIERS  \
  "ldr r0, [sp, #12]\n\t"              \
  "ldrd r2, r3, [r0], #8\n\t"          \
  "str r0, [sp, #12]\n\t"              \
  "ldrd r12, lr, [sp, #52]\n\t"
#define TVMT_PAIRS_SCALE(HIGH, ADD)    \
  HIGH " r4, r4, r2" ADD "\n\t"        \
  HIGH " r5, r5, r3" ADD "\n\t"        \
  HIGH " r6, r6, r2" ADD "\n\t"        \
  HIGH " r7, r7, r3" ADD "\n\t"        \
  HIGH " r8, r8, r2" ADD "\n\t"        \
  HIGH " r9, r9, r3" ADD "\n\t"        \
  HIGH " r10, r10, r2" ADD "\n\t"      \
  HIGH " r11, r11, r3" ADD "\n\t"
#define TVMT_PAIRS_SCALE_ROWS          \
  "ldr r0, [sp, #12]\n\t"              \
  "ldrd r12, lr, [sp, #52]\n\t"        \
  "ldrd r2, r3, [r0]\n\t"              \
  "smmlar r4, r4, r2, r12\n\t"         \
  "smmlar r5, r5, r2, r12\n\t"         \
  "smmlar r6, r6, r3, r12\n\t"         \
  "smmlar r7, r7, r3, r12\n\t"         \
  "ldrd r2, r3, [r0, #8]\n\t"          \
  "smmlar r8, r8, r2, r12\n\t"         \
  "smmlar r9, r9, r2, r12\n\t"         \
  "smmlar r10, r10, r3, r12\n\t"       \
  "smmlar r11, r11, r3, r12\n\t"
#define TVMT_PAIRS_SATURATE(ACC) "ssat " ACC ", #8, " ACC "\n\t"
#define TVMT_PAIRS_INDEX(ACC) "usat " ACC ", #8, " ACC "\n\t"
#define TVMT_PAIRS_LOOK_UP(ACC) "ldrb " ACC ", [r2, " ACC "]\n\t"
#define TVMT_PAIRS_SHIFT(ACC) "lsl " ACC ", " ACC ", r2\n\t"
/* lr: output of row 0, unchanged at the end. */
#define TVMT_PAIRS_STORE(STR, SECOND)            \
  "ldrd r2, r3, [sp, #60]\n\t"                   \
  STR " r4, [lr]\n\t"                            \
  STR " r5, [lr, #" SECOND "]\n\t"               \
  "add r0, lr, r2\n\t"                           \
  STR " r6, [r0]\n\t"                            \
  STR " r7, [r0, #" SECOND "]\n\t"               \
  "add r12, lr, r3\n\t"                          \
  STR " r8, [r12]\n\t"                           \
  STR " r9, [r12, #" SECOND "]\n\t"              \
  "add r0, r12, r2\n\t"                          \
  STR " r10, [r0]\n\t"                           \
  STR " r11, [r0, #" SECOND "]\n\t"
/* On to the next pair of columns, or the end. */
#define TVMT_PAIRS_NEXT(HEAD)          \
  "ldrd r2, r3, [sp, #68]\n\t"         \
  "add lr, r2\n\t"                     \
  "str lr, [sp, #56]\n\t"              \
  "ldr r2, [sp, #76]\n\t"              \
  "subs r3, #1\n\t"                    \
  "add r1, r2\n\t"                     \
  "str r3, [sp, #72]\n\t"              \
  "bne.w " HEAD "\n\t"                 \
  "add sp, #16\n\t"                    \
  "pop {r4-r11, pc}\n"

#define TVMT_PAIRS_LOOP(TURN)                                                                                         \
  "push {r0-r11, lr}\n\t"                                                                                             \
  "ldrd r4, r5, [sp, #84]\n\t" /* skip, finish */                                                                     \
  "ldr r6, [sp, #92]\n\t"      /* shift */                                                                            \
  "adr.w r7, 9f\n\t"                                                                                                  \
  "ldrh r8, [r7, r5, lsl #1]\n\t"                                                                                     \
  "orr r7, r7, #1\n\t" /* code addresses of Thumb */                                                                  \
  "add r8, r8, r7\n\t"                                                                                                \
  "str r8, [sp, #88]\n\t"                                                                                             \
  "adr.w r9, 7f\n\t"                                                                                                  \
  "orr r9, r9, #1\n\t"                                                                                                \
  "cmp r6, #0\n\t"                                                                                                    \
  "it eq\n\t"                                                                                                         \
  "moveq r9, r8\n\t"                                                                                                  \
  "str r9, [sp, #4]\n\t"                                                                                              \
  "adr.w r8, 3f\n\t"                                                                                                  \
  "orr r8, r8, #1\n\t"                                                                                                \
  "add r8, r8, r4\n\t"                                                                                                \
  "str r8, [sp, #84]\n\t"                                                                                             \
  "cmp r5, #4\n\t"                                                                                                    \
  "bhs.w 2f\n"                                                                                                        \
  "1:\n\t" /* columns with a bias */                                                                                  \
  "ldr r3, [sp, #8]\n\t"                                                                                              \
  "ldr r0, [sp]\n\t"                                                                                                  \
  "ldrd r4, r5, [r3], #8\n\t"                                                                                         \
  "str r3, [sp, #8]\n\t"                                                                                              \
  "mov r6, r4\n\t"                                                                                                    \
  "mov r7, r5\n\t"                                                                                                    \
  "mov r8, r4\n\t"                                                                                                    \
  "mov r9, r5\n\t"                                                                                                    \
  "mov r10, r4\n\t"                                                                                                   \
  "mov r11, r5\n\t"                                                                                                   \
  "ldr.w pc, [sp, #84]\n"                                                                                             \
  "7:\n\t" /* shift */                                                                                                \
  "ldr r2, [sp, #92]\n\t" TVMT_PAIRS_ALL(TVMT_PAIRS_SHIFT)                                                            \
  "ldr.w pc, [sp, #88]\n\t"                                                                                           \
  ".balign 4\n"                                                                                                       \
  "9:\n\t"                                                                                                            \
  ".short 30f - 9b, 31f - 9b, 32f - 9b, 33f - 9b, 34f - 9b, 35f - 9b\n"                                               \
  "2:\n\t" /* columns without */                                                                                      \
  "ldr r0, [sp]\n\t"                                                                                                  \
  "movs r4, #0\n\t"                                                                                                   \
  "movs r5, #0\n\t"                                                                                                   \
  "movs r6, #0\n\t"                                                                                                   \
  "movs r7, #0\n\t"                                                                                                   \
  "mov r8, r4\n\t"                                                                                                    \
  "mov r9, r4\n\t"                                                                                                    \
  "mov r10, r4\n\t"                                                                                                   \
  "mov r11, r4\n\t"                                                                                                   \
  "ldr.w pc, [sp, #84]\n\t"                                                                                           \
  ".balign 4\n"                                                                                                       \
  "3:\n\t" TURN                                                                                                       \
  "ldr r2, [sp, #80]\n\t" /* the strip's end */                                                                       \
  "cmp r0, r2\n\t"                                                                                                    \
  "bne.w 3b\n\t"                                                                                                      \
  "ldr.w pc, [sp, #4]\n"                                                                                              \
  "30:\n\t" TVMT_PAIRS_COLUMN_MULTIPLIERS TVMT_PAIRS_SCALE("smmlar", ", r12") TVMT_PAIRS_ALL(TVMT_PAIRS_SATURATE)     \
  TVMT_PAIRS_STORE("strb.w", "1") TVMT_PAIRS_NEXT("1b")                                                               \
  "31:\n\t" TVMT_PAIRS_COLUMN_MULTIPLIERS                                                                             \
  "add r12, r12, #128\n\t" TVMT_PAIRS_SCALE("smmlar", ", r12") TVMT_PAIRS_ALL(TVMT_PAIRS_INDEX)                       \
  "ldr r2, [sp, #96]\n\t" TVMT_PAIRS_ALL(TVMT_PAIRS_LOOK_UP)                                                          \
  TVMT_PAIRS_STORE("strb.w", "1") TVMT_PAIRS_NEXT("1b")                                                               \
  "32:\n\t" TVMT_PAIRS_COLUMN_MULTIPLIERS TVMT_PAIRS_SCALE("smmlar", ", r12") TVMT_PAIRS_ALL(TVMT_PAIRS_SATURATE)     \
  TVMT_PAIRS_STORE("strb.w", "2") TVMT_PAIRS_NEXT("1b")                                                               \
  "33:\n\t" TVMT_PAIRS_COLUMN_MULTIPLIERS TVMT_PAIRS_SCALE("smmulr", "")                                              \
  TVMT_PAIRS_STORE("str.w", "4") TVMT_PAIRS_NEXT("1b")                                                                \
  "34:\n\t"                                                                                                           \
  "ldr lr, [sp, #56]\n\t" TVMT_PAIRS_STORE("str.w", "4") TVMT_PAIRS_NEXT("2b")                                        \
  "35:\n\t" TVMT_PAIRS_SCALE_ROWS TVMT_PAIRS_ALL(TVMT_PAIRS_SATURATE)                                                 \
  TVMT_PAIRS_STORE("strb.w", "1") TVMT_PAIRS_NEXT("2b")

/* Four rows with `pairs` pairs of columns.
 *
 * x, w: 8 bytes before the strip and one step before the columns, less what the steps to leave out of the first turn
 * would read. w_gap: what takes the pointer to the columns from the end of a pair to the next such place. x_end: where
 * the first pointer ends. skip: bytes of the steps to leave out.
 *
 * Arguments and registers make one frame: 0 x, 4 where the loop goes on, 8 bias, 12 multiplier, 16 saved registers,
 * 52 zero_point, 56 out, 60 row, 64 two_rows, 68 two_cols, 72 pairs left, 76 w_gap, 80 x_end, 84 skip, then where the
 * loop is entered, 88 finish, then its code, 92 shift, 96 table.
 */
#define TVMT_PAIRS_PARAMETERS                                                                                         \
  uintptr_t x, uintptr_t w, const int32_t *bias, const int32_t *multiplier, int32_t zero_point, void *out,            \
      int32_t row, int32_t two_rows, int32_t two_cols, int32_t pairs, int32_t w_gap, uintptr_t x_end, int32_t skip,   \
      int32_t finish, int32_t shift, const int8_t *table
#define TVMT_PAIRS_TAKEN                                                                                              \
  TVMT_IN_ASSEMBLY((void)x, (void)w, (void)bias, (void)multiplier, (void)zero_point, (void)out, (void)row,            \
                   (void)two_rows, (void)two_cols, (void)pairs, (void)w_gap, (void)x_end, (void)skip,                 \
                   (void)finish, (void)shift, (void)table)
TVMT_ASSEMBLY TVMT_CODE_SECTION void tvmt_pairs_loop_s8(TVMT_PAIRS_PARAMETERS) {
  TVMT_PAIRS_TAKEN
  __asm__(TVMT_PAIRS_LOOP(TVMT_PAIRS_TURN_S8));
}

TVMT_ASSEMBLY TVMT_CODE_SECTION void tvmt_pairs_loop_s16(TVMT_PAIRS_PARAMETERS) {
  TVMT_PAIRS_TAKEN
  __asm__(TVMT_PAIRS_LOOP(TVMT_PAIRS_TURN_S16));
}

/* r2, r3: lanes of both columns; r10, r12, lr: of the rows. */
#define TVMT_PAIRS_WORD_S8      \
  "ldr r3, [r1], #4\n\t"        \
  "sxtb16 r2, r3\n\t"           \
  "sxtb16 r3, r3, ror #8\n\t"
#define TVMT_PAIRS_WORD_S16 "ldrd r2, r3, [r1], #8\n\t"
#define TVMT_PAIRS_ROW(X, FIRST, SECOND)         \
  "smlad " FIRST ", " X ", r2, " FIRST "\n\t"    \
  "smlad " SECOND ", " X ", r3, " SECOND "\n\t"
#define TVMT_PAIRS_ONE_ROW "ldr r12, [r0], #4\n\t" TVMT_PAIRS_ROW("r12", "r4", "r5")
#define TVMT_PAIRS_TWO_ROWS "ldm r0!, {r12, lr}\n\t" TVMT_PAIRS_ROW("r12", "r4", "r5") TVMT_PAIRS_ROW("lr", "r6", "r7")
#define TVMT_PAIRS_THREE_ROWS                                                                       \
  "ldm r0!, {r10, r12, lr}\n\t"                                                                     \
  TVMT_PAIRS_ROW("r10", "r4", "r5") TVMT_PAIRS_ROW("r12", "r6", "r7") TVMT_PAIRS_ROW("lr", "r8", "r9")
#define TVMT_PAIRS_FEW(LABEL, WORD, ROWS)  \
  LABEL ":\n\t" WORD ROWS WORD ROWS        \
  "cmp r0, r11\n\t"                        \
  "bne " LABEL "b\n\t"                     \
  "b.w 5f\n"
#define TVMT_PAIRS_SUMS(WORD)                                                                       \
  "push {r2-r11, lr}\n\t"                                                                           \
  "ldr r12, [sp, #44]\n\t"                                                                          \
  "ldm r2, {r4-r11}\n\t"                                                                            \
  "cmp r12, #3\n\t"                                                                                 \
  "bhi 4f\n\t"                                                                                      \
  "mov r11, r3\n\t"                                                                                 \
  "beq 3f\n\t"                                                                                      \
  "cmp r12, #2\n\t"                                                                                 \
  "beq 2f\n" TVMT_PAIRS_FEW("1", WORD, TVMT_PAIRS_ONE_ROW) TVMT_PAIRS_FEW("2", WORD, TVMT_PAIRS_TWO_ROWS) \
  TVMT_PAIRS_FEW("3", WORD, TVMT_PAIRS_THREE_ROWS)                                                  \
  "4:\n\t" WORD                                                                                     \
  "ldrd r12, lr, [r0], #8\n\t" TVMT_PAIRS_PRODUCTS("[r0], #8")                                      \
  "ldr r2, [sp, #4]\n\t"                                                                            \
  "cmp r0, r2\n\t"                                                                                  \
  "bne 4b\n"                                                                                        \
  "5:\n\t"                                                                                          \
  "ldr r2, [sp]\n\t"                                                                                \
  "stm r2, {r4-r11}\n\t"                                                                            \
  "add sp, #8\n\t"                                                                                  \
  "pop {r4-r11, pc}\n"

/* Of one pair of columns: acc[2 * i + c] += row i * column c, for 1 to 4 rows and at least two steps up to x == end. */
TVMT_ASSEMBLY TVMT_CODE_SECTION void tvmt_pairs_sums_s8(const uint32_t *x, const void *w, int32_t *acc,
                                                                      const uint32_t *end, int32_t rows) {
  TVMT_IN_ASSEMBLY((void)x, (void)w, (void)acc, (void)end, (void)rows)
  __asm__(TVMT_PAIRS_SUMS(TVMT_PAIRS_WORD_S8));
}

TVMT_ASSEMBLY TVMT_CODE_SECTION void tvmt_pairs_sums_s16(const uint32_t *x, const void *w, int32_t *acc,
                                                                       const uint32_t *end, int32_t rows) {
  TVMT_IN_ASSEMBLY((void)x, (void)w, (void)acc, (void)end, (void)rows)
  __asm__(TVMT_PAIRS_SUMS(TVMT_PAIRS_WORD_S16));
}

#else

/* The same in C; wide: whether the columns are int16. */
TVMT_INLINE void tvmt_pairs_sums(const uint32_t *x, const void *w, int32_t *acc, const uint32_t *end, int32_t rows,
                                 int wide) {
  const uint8_t *words = (const uint8_t *)w;
  for (; x != end; x += rows) {
    const uint32_t word = tvmt_load_word(words);
    const uint32_t first = wide ? word : tvmt_even_s8(word);
    const uint32_t second = wide ? tvmt_load_word(words + 4) : tvmt_odd_s8(word);
    for (int32_t i = 0; i < rows; i++) {
      acc[2 * i] = tvmt_multiply_lanes(x[i], first, acc[2 * i]);
      acc[2 * i + 1] = tvmt_multiply_lanes(x[i], second, acc[2 * i + 1]);
    }
    words += wide ? 8 : 4;
  }
}

TVMT_INLINE void tvmt_pairs_sums_s8(const uint32_t *x, const void *w, int32_t *acc, const uint32_t *end, int32_t rows) {
  tvmt_pairs_sums(x, w, acc, end, rows, 0);
}

TVMT_INLINE void tvmt_pairs_sums_s16(const uint32_t *x, const void *w, int32_t *acc, const uint32_t *end,
                                     int32_t rows) {
  tvmt_pairs_sums(x, w, acc, end, rows, 1);
}

#endif

#endif
