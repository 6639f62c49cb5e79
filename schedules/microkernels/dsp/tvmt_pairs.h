/* Products of strips of four widened rows with pairs of int8 columns: the inner loop of every matrix product whose
 * columns may be laid out for it.
 *
 * Two columns lie interleaved: byte 2 * k + c of a pair is element k of its column c. A word then holds two elements of
 * both columns, and two extensions make of it what eight SMLAD multiply with four rows: 13 instructions and 18 cycles
 * of a Cortex-M4 for 16 products. Rows are widened once, to words of two elements, in the order in which the loop reads
 * them (tvmt_widen_pairs.h). Sums are modulo 2**32, so only the final value has to fit an int32_t.
 */
#ifndef TVMT_PAIRS_H
#define TVMT_PAIRS_H

#include "tvmt_assembly.h"
#include "tvmt_widen_pairs.h"

/* Rows of a strip; tvmtiny.schedule.rules sizes the workspace for it. */
enum { TVMT_PAIR_ROWS = 4 };

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

/* Columns and where their products with rows go: row i and column j at
 * (i >> 1) * two_rows + (i & 1) * row + (j >> 1) * two_cols bytes, and the second column of a pair behind the first. */
typedef struct {
  const int8_t *w;           /* pairs of columns, `depth` elements filled up to a multiple of four */
  int32_t w_stride;          /* bytes from a pair to the next */
  int32_t depth, cols;
  const int32_t *bias;       /* NULL where there is none */
  const int32_t *multiplier; /* of the columns, or of the rows for ROW_S8 */
  const int8_t *table;       /* of TABLE_S8 */
  int32_t row, two_rows, two_cols;
  int32_t shift, zero_point;
} tvmt_pairs;

/* Bytes from the first column's output to the second's. */
TVMT_INLINE int32_t tvmt_pairs_second(int finish) {
  return finish == TVMT_PAIRS_KEYS_S8 ? 2 : finish == TVMT_PAIRS_S32 || finish == TVMT_PAIRS_RAW ? 4 : 1;
}

/* Writes one output. */
TVMT_INLINE void tvmt_pairs_finish(int8_t *y, int32_t acc, int32_t i, int32_t j, const tvmt_pairs *c, int finish) {
  if (finish == TVMT_PAIRS_RAW) {
    *(int32_t *)(void *)y = acc;
    return;
  }
  const int32_t multiplier = c->multiplier[finish == TVMT_PAIRS_ROW_S8 ? i : j];
  const int32_t value = tvmt_shift_left(acc, c->shift);
  if (finish == TVMT_PAIRS_S32) {
    *(int32_t *)(void *)y = tvmt_multiply_high(value, multiplier);
    return;
  }
  const int8_t result = tvmt_saturate_s8(tvmt_multiply_high_add(c->zero_point, value, multiplier));
  *y = finish == TVMT_PAIRS_TABLE_S8 ? c->table[result + 128] : result;
}

#if TVMT_DSP

/* r0: strip; r1: columns; r2, r3: lanes of both; r4 to r11: accumulators, a row's two side by side; r12, lr: lanes of two
 * rows. Every instruction has four bytes. X01, X23, W: addresses of rows 0 and 1, of rows 2 and 3, of the columns. */
#define TVMT_PAIRS_STEP(X0, X1, X23, W)   \
  "ldr.w r2, " W "\n\t"                \
  "ldr.w r12, " X0 "\n\t"          \
  "ldr.w lr, " X1 "\n\t"          \
  "sxtb16 r3, r2, ror #8\n\t"          \
  "sxtb16 r2, r2\n\t"                  \
  "smlad r4, r12, r2, r4\n\t"          \
  "smlad r5, r12, r3, r5\n\t"          \
  "smlad r6, lr, r2, r6\n\t"           \
  "smlad r7, lr, r3, r7\n\t"           \
  "ldrd r12, lr, " X23 "\n\t"          \
  "smlad r8, r12, r2, r8\n\t"          \
  "smlad r9, r12, r3, r9\n\t"          \
  "smlad r10, lr, r2, r10\n\t"         \
  "smlad r11, lr, r3, r11\n\t"
enum { TVMT_PAIRS_STEP_BYTES = 56 };

/* Step I of a turn; offsets count from 8 bytes before its part of the strip and 4 before that of the columns, so that
 * the last step can take both pointers to the next turn. */
#define TVMT_PAIRS_STEP_AT(X01, X23, W) \
  TVMT_PAIRS_STEP("[r0, #" #X01 "]", "[r0, #" #X01 "+4]", "[r0, #" #X23 "]", "[r1, #" #W "]")
#define TVMT_PAIRS_TURN                                                       \
  TVMT_PAIRS_STEP_AT(8, 16, 4) TVMT_PAIRS_STEP_AT(24, 32, 8)                  \
  TVMT_PAIRS_STEP_AT(40, 48, 12) TVMT_PAIRS_STEP_AT(56, 64, 16)               \
  TVMT_PAIRS_STEP_AT(72, 80, 20) TVMT_PAIRS_STEP_AT(88, 96, 24)               \
  TVMT_PAIRS_STEP_AT(104, 112, 28) TVMT_PAIRS_STEP_AT(120, 128, 32)           \
  TVMT_PAIRS_STEP_AT(136, 144, 36) TVMT_PAIRS_STEP_AT(152, 160, 40)           \
  TVMT_PAIRS_STEP_AT(168, 176, 44) TVMT_PAIRS_STEP_AT(184, 192, 48)           \
  TVMT_PAIRS_STEP_AT(200, 208, 52) TVMT_PAIRS_STEP_AT(216, 224, 56)           \
  TVMT_PAIRS_STEP_AT(232, 240, 60)                                            \
  TVMT_PAIRS_STEP("[r0, #248]", "[r0, #252]", "[r0, #256]!", "[r1, #64]!")
enum { TVMT_PAIRS_STEPS = 16 };

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

/* Four rows with `pairs` pairs of columns.
 *
 * x, w: 8 bytes before the strip and 4 before the columns, less what the steps to leave out of the first turn would
 * read. w_gap: what takes the pointer to the columns from the end of a pair to the next such place. x_end: where the
 * first pointer ends. skip: bytes of the steps to leave out.
 *
 * Arguments and registers make one frame: 0 x, 4 where the loop goes on, 8 bias, 12 multiplier, 16 saved registers,
 * 52 zero_point, 56 out, 60 row, 64 two_rows, 68 two_cols, 72 pairs left, 76 w_gap, 80 x_end, 84 skip, then where the
 * loop is entered, 88 finish, then its code, 92 shift, 96 table.
 */
TVMT_FUNCTION TVMT_ASSEMBLY TVMT_CODE_SECTION void tvmt_pairs_loop(
    uintptr_t x, uintptr_t w, const int32_t *bias, const int32_t *multiplier, int32_t zero_point, void *out,
    int32_t row, int32_t two_rows, int32_t two_cols, int32_t pairs, int32_t w_gap, uintptr_t x_end, int32_t skip, int32_t finish,
    int32_t shift, const int8_t *table) {
  (void)x, (void)w, (void)bias, (void)multiplier, (void)zero_point, (void)out, (void)row, (void)two_rows;
  (void)two_cols, (void)pairs, (void)w_gap, (void)x_end, (void)skip, (void)finish, (void)shift, (void)table;
  __asm__(
      "push {r0-r11, lr}\n\t"
      "ldrd r4, r5, [sp, #84]\n\t" /* skip, finish */
      "ldr r6, [sp, #92]\n\t"      /* shift */
      "adr.w r7, 9f\n\t"
      "ldrh r8, [r7, r5, lsl #1]\n\t"
      "orr r7, r7, #1\n\t" /* code addresses of Thumb */
      "add r8, r8, r7\n\t"
      "str r8, [sp, #88]\n\t"
      "adr.w r9, 7f\n\t"
      "orr r9, r9, #1\n\t"
      "cmp r6, #0\n\t"
      "it eq\n\t"
      "moveq r9, r8\n\t"
      "str r9, [sp, #4]\n\t"
      "adr.w r8, 3f\n\t"
      "orr r8, r8, #1\n\t"
      "add r8, r8, r4\n\t"
      "str r8, [sp, #84]\n\t"
      "cmp r5, #4\n\t"
      "bhs.w 2f\n"
      "1:\n\t" /* columns with a bias */
      "ldr r3, [sp, #8]\n\t"
      "ldr r0, [sp]\n\t"
      "ldrd r4, r5, [r3], #8\n\t"
      "str r3, [sp, #8]\n\t"
      "mov r6, r4\n\t"
      "mov r7, r5\n\t"
      "mov r8, r4\n\t"
      "mov r9, r5\n\t"
      "mov r10, r4\n\t"
      "mov r11, r5\n\t"
      "ldr.w pc, [sp, #84]\n"
      "7:\n\t" /* shift */
      "ldr r2, [sp, #92]\n\t" TVMT_PAIRS_ALL(TVMT_PAIRS_SHIFT)
      "ldr.w pc, [sp, #88]\n\t"
      ".balign 4\n"
      "9:\n\t"
      ".short 30f - 9b, 31f - 9b, 32f - 9b, 33f - 9b, 34f - 9b, 35f - 9b\n"
      "2:\n\t" /* columns without */
      "ldr r0, [sp]\n\t"
      "movs r4, #0\n\t"
      "movs r5, #0\n\t"
      "movs r6, #0\n\t"
      "movs r7, #0\n\t"
      "mov r8, r4\n\t"
      "mov r9, r4\n\t"
      "mov r10, r4\n\t"
      "mov r11, r4\n\t"
      "ldr.w pc, [sp, #84]\n\t"
      ".balign 4\n"
      "3:\n\t" TVMT_PAIRS_TURN
      "ldr r2, [sp, #80]\n\t" /* the strip's end */
      "cmp r0, r2\n\t"
      "bne.w 3b\n\t"
      "ldr.w pc, [sp, #4]\n"
      "30:\n\t" TVMT_PAIRS_COLUMN_MULTIPLIERS TVMT_PAIRS_SCALE("smmlar", ", r12") TVMT_PAIRS_ALL(TVMT_PAIRS_SATURATE)
      TVMT_PAIRS_STORE("strb.w", "1") TVMT_PAIRS_NEXT("1b")
      "31:\n\t" TVMT_PAIRS_COLUMN_MULTIPLIERS
      "add r12, r12, #128\n\t" TVMT_PAIRS_SCALE("smmlar", ", r12") TVMT_PAIRS_ALL(TVMT_PAIRS_INDEX)
      "ldr r2, [sp, #96]\n\t" TVMT_PAIRS_ALL(TVMT_PAIRS_LOOK_UP)
      TVMT_PAIRS_STORE("strb.w", "1") TVMT_PAIRS_NEXT("1b")
      "32:\n\t" TVMT_PAIRS_COLUMN_MULTIPLIERS TVMT_PAIRS_SCALE("smmlar", ", r12") TVMT_PAIRS_ALL(TVMT_PAIRS_SATURATE)
      TVMT_PAIRS_STORE("strb.w", "2") TVMT_PAIRS_NEXT("1b")
      "33:\n\t" TVMT_PAIRS_COLUMN_MULTIPLIERS TVMT_PAIRS_SCALE("smmulr", "")
      TVMT_PAIRS_STORE("str.w", "4") TVMT_PAIRS_NEXT("1b")
      "34:\n\t"
      "ldr lr, [sp, #56]\n\t" TVMT_PAIRS_STORE("str.w", "4") TVMT_PAIRS_NEXT("2b")
      "35:\n\t" TVMT_PAIRS_SCALE_ROWS TVMT_PAIRS_ALL(TVMT_PAIRS_SATURATE)
      TVMT_PAIRS_STORE("strb.w", "1") TVMT_PAIRS_NEXT("2b"));
}

/* Of one pair of columns: acc[2 * i + c] += row i * column c, for 1 to 4 rows and at least two steps up to x == end. */
TVMT_FUNCTION TVMT_ASSEMBLY TVMT_CODE_SECTION void tvmt_pairs_sums(const uint32_t *x, const int8_t *w, int32_t *acc,
                                                                   const uint32_t *end, int32_t rows) {
  (void)x, (void)w, (void)acc, (void)end, (void)rows;
#define TVMT_PAIRS_WORD         \
  "ldr r3, [r1], #4\n\t"        \
  "sxtb16 r2, r3\n\t"           \
  "sxtb16 r3, r3, ror #8\n\t"
#define TVMT_PAIRS_ROW(X, FIRST, SECOND)         \
  "smlad " FIRST ", " X ", r2, " FIRST "\n\t"    \
  "smlad " SECOND ", " X ", r3, " SECOND "\n\t"
#define TVMT_PAIRS_TWO_ROWS TVMT_PAIRS_ROW("r12", "r4", "r5") TVMT_PAIRS_ROW("lr", "r6", "r7")
#define TVMT_PAIRS_STEP_1 TVMT_PAIRS_WORD "ldr r12, [r0], #4\n\t" TVMT_PAIRS_ROW("r12", "r4", "r5")
#define TVMT_PAIRS_STEP_2 TVMT_PAIRS_WORD "ldm r0!, {r12, lr}\n\t" TVMT_PAIRS_TWO_ROWS
#define TVMT_PAIRS_STEP_3 TVMT_PAIRS_WORD "ldm r0!, {r10, r12, lr}\n\t" \
  TVMT_PAIRS_ROW("r10", "r4", "r5") TVMT_PAIRS_ROW("r12", "r6", "r7") TVMT_PAIRS_ROW("lr", "r8", "r9")
#define TVMT_PAIRS_FEW(LABEL, STEP)     \
  LABEL ":\n\t" STEP STEP               \
  "cmp r0, r11\n\t"                     \
  "bne " LABEL "b\n\t"                  \
  "b.w 5f\n"
  __asm__(
      "push {r2-r11, lr}\n\t"
      "ldr r12, [sp, #44]\n\t"
      "ldm r2, {r4-r11}\n\t"
      "cmp r12, #3\n\t"
      "bhi 4f\n\t"
      "mov r11, r3\n\t"
      "beq 3f\n\t"
      "cmp r12, #2\n\t"
      "beq 2f\n" TVMT_PAIRS_FEW("1", TVMT_PAIRS_STEP_1) TVMT_PAIRS_FEW("2", TVMT_PAIRS_STEP_2)
      TVMT_PAIRS_FEW("3", TVMT_PAIRS_STEP_3)
      "4:\n\t" TVMT_PAIRS_STEP("[r0], #4", "[r0], #4", "[r0], #8", "[r1], #4")
      "ldr r2, [sp, #4]\n\t"
      "cmp r0, r2\n\t"
      "bne 4b\n"
      "5:\n\t"
      "ldr r2, [sp]\n\t"
      "stm r2, {r4-r11}\n\t"
      "add sp, #8\n\t"
      "pop {r4-r11, pc}\n");
}

#else

TVMT_INLINE void tvmt_pairs_sums(const uint32_t *x, const int8_t *w, int32_t *acc, const uint32_t *end, int32_t rows) {
  for (; x != end; x += rows) {
    const uint32_t word = tvmt_load_word(w), first = tvmt_even_s8(word), second = tvmt_odd_s8(word);
    for (int32_t i = 0; i < rows; i++) {
      acc[2 * i] = tvmt_multiply_lanes(x[i], first, acc[2 * i]);
      acc[2 * i + 1] = tvmt_multiply_lanes(x[i], second, acc[2 * i + 1]);
    }
    w += 4;
  }
}

#endif

/* One pair of columns j and, if there is one, j + 1. */
TVMT_INLINE void tvmt_pairs_one(const uint32_t *x, const uint32_t *end, int8_t *out, int32_t rows, int32_t j,
                                const tvmt_pairs *c, int finish) {
  const int32_t both = j + 1 < c->cols ? 1 : 0;
  const int32_t first = c->bias != NULL ? c->bias[j] : 0, second = c->bias != NULL ? c->bias[j + both] : 0;
  int32_t acc[2 * TVMT_PAIR_ROWS] = {first, second, first, second, first, second, first, second};
  int8_t *pair = out + (j >> 1) * c->two_cols;
  tvmt_pairs_sums(x, c->w + (j >> 1) * c->w_stride, acc, end, rows);
  for (int32_t i = 0; i < rows; i++) {
    int8_t *y = pair + (i >> 1) * c->two_rows + (i & 1) * c->row;
    tvmt_pairs_finish(y, acc[2 * i], i, j, c, finish);
    if (both != 0) {
      tvmt_pairs_finish(y + tvmt_pairs_second(finish), acc[2 * i + 1], i, j + 1, c, finish);
    }
  }
}

/* What becomes of 1 to 4 rows, widened at x, and all columns. out: of row 0 and column 0. */
TVMT_FUNCTION TVMT_CODE_SECTION __attribute__((noinline)) void tvmt_pairs_strip(const uint32_t *x, void *out,
                                                                                int32_t rows, const tvmt_pairs *c,
                                                                                int finish) {
  const int32_t steps = 2 * ((c->depth + 3) >> 2);
  const uint32_t *end = x + steps * rows;
  int32_t j = 0;
#if TVMT_DSP
  if (rows == TVMT_PAIR_ROWS && c->cols > 1) {
    const int32_t skip = -steps & (TVMT_PAIRS_STEPS - 1);
    j = c->cols & ~1;
    tvmt_pairs_loop((uintptr_t)x - 8U - (uintptr_t)(16 * skip), (uintptr_t)c->w - 4U - (uintptr_t)(4 * skip), c->bias,
                    c->multiplier, c->zero_point, out, c->row, c->two_rows, c->two_cols, j >> 1,
                    c->w_stride - 4 * (steps + skip), (uintptr_t)end - 8U, TVMT_PAIRS_STEP_BYTES * skip, finish,
                    c->shift, c->table);
  }
#endif
  for (; j < c->cols; j += 2) {
    tvmt_pairs_one(x, end, (int8_t *)out, rows, j, c, finish);
  }
}

#endif
