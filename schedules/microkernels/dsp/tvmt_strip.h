/* Products of a strip of widened rows with int8 columns: the inner loop of every matrix product.
 *
 * Sign extension is what costs. A strip of up to six rows is widened once (tvmt_widen.h) and multiplied with every
 * column; a column's bytes are widened on the way. Six rows take 18 instructions for 24 products: one load and two
 * extensions of the column, three LDM of the strip, twelve SMLAD. Sums are modulo 2**32, so only the final value has
 * to fit an int32_t. Columns need no alignment.
 */
#ifndef TVMT_STRIP_H
#define TVMT_STRIP_H

#include "tvmt_strip_steps.h"
#include "tvmt_widen.h"

/* Rows of the largest strip; tvmtiny.schedule.rules sizes the workspace for it. */
enum { TVMT_STRIP_ROWS = 6 };

/* What becomes of an accumulator, acc = bias[j] + the product of a row and column j:
 *   S8         clamp8(multiply_high(acc << shift, multiplier[j]) + zero_point) as int8
 *   S32        multiply_high(acc << shift, multiplier[j]) as int32
 *   RAW        acc without a bias as int32
 *   ROW_S8     clamp8(multiply_high(acc << shift, multiplier[i]) + zero_point) as int8, acc without a bias
 */
enum { TVMT_FINISH_S8 = 0, TVMT_FINISH_S32 = 1, TVMT_FINISH_RAW = 2, TVMT_FINISH_ROW_S8 = 3 };

/* Columns and what is made of their products; strides in bytes. */
typedef struct {
  const int8_t *w;           /* columns of `depth` elements */
  int32_t w_stride, depth;
  int32_t cols;
  const int32_t *bias;       /* NULL where there is none */
  const int32_t *multiplier; /* of the columns, or of the rows for ROW_S8 */
  int32_t row_stride, col_stride;
  int32_t shift, zero_point;
} tvmt_columns;

/* Rows of the next strip when `rows` > 0 are left: strips of about the same size, as small ones are slow. */
TVMT_INLINE int32_t tvmt_strip_rows(int32_t rows) {
  const int32_t strips = (rows + (TVMT_STRIP_ROWS - 1)) / TVMT_STRIP_ROWS;
  return (rows + strips - 1) / strips;
}

#if TVMT_DSP

/* r10: output of row 0; r11: row_stride; r12: columns left; lr: output of row 3; the rows are entered at the last. */
#define TVMT_OUTPUTS                        \
  "ldrd r10, r12, [sp, #56]\n\t"            \
  "ldrd r11, r3, [sp, #64]\n\t"             \
  "add lr, r11, r11, lsl #1\n\t"            \
  "add lr, lr, r10\n\t"                     \
  "ldr.w pc, [sp, #48]\n"
#define TVMT_ALL_ROWS(ROW)                                              \
  ROW("r9", "[lr, r11, lsl #1]", "20")                                  \
  ROW("r8", "[lr, r11]", "16")                                          \
  ROW("r7", "[lr]", "12")                                               \
  ROW("r6", "[r10, r11, lsl #1]", "8")                                  \
  ROW("r5", "[r10, r11]", "4")                                          \
  ROW("r4", "[r10]", "0")
#define TVMT_ROW_S8(ACC, TO, I)             \
  "smmlar " ACC ", " ACC ", r2, r3\n\t"     \
  "ssat " ACC ", #8, " ACC "\n\t"           \
  "strb.w " ACC ", " TO "\n\t"
#define TVMT_ROW_S32(ACC, TO, I)            \
  "smmulr " ACC ", " ACC ", r2\n\t"         \
  "str.w " ACC ", " TO "\n\t"
#define TVMT_ROW_RAW(ACC, TO, I) "str.w " ACC ", " TO "\n\t"
#define TVMT_ROW_ROW_S8(ACC, TO, I)         \
  "ldr.w r2, [r0, #" I "]\n\t"              \
  TVMT_ROW_S8(ACC, TO, I)
#define TVMT_COLUMN_MULTIPLIER              \
  "ldr r0, [sp, #12]\n\t"                   \
  "ldr r2, [r0], #4\n\t"                    \
  "str r0, [sp, #12]\n\t"
/* On to the next column, or the end. */
#define TVMT_NEXT_COLUMN(HEAD)              \
  "ldrd r2, r3, [sp, #72]\n\t"              \
  "add r10, r10, r2\n\t"                    \
  "add r1, r1, r3\n\t"                      \
  "subs r12, r12, #1\n\t"                   \
  "strd r10, r12, [sp, #56]\n\t"            \
  "bne.w " HEAD "\n\t"                      \
  "add sp, #16\n\t"                         \
  "pop {r4-r12, pc}\n"

/* The columns of a strip x of `rows` rows, ending at x_end.
 *
 * gap: bytes from the end of a column's whole words to the next column. tail: elements behind the whole words, at
 * `whole` bytes from a column's start. skip: steps to leave out of the first turn of the loop. first: 0.
 *
 * Arguments and registers make one frame: 0 x, 4 where the loop goes on, 8 bias, 12 multiplier, 16 saved registers,
 * 48 where the rows of the output are entered, 56 out, 60 columns left, 64 row_stride, 68 zero_point, 72 col_stride,
 * 76 gap, 80 x_end, 84 tail, 88 whole, 92 rows, then what a column enters, 96 skip, then where the loop is entered,
 * 100 finish, then its code, 104 shift, 108 the first step, where a column enters before it.
 */
TVMT_ASSEMBLY TVMT_CODE_SECTION void tvmt_strip_loop(
    const uint32_t *x, const int8_t *w, const int32_t *bias, const int32_t *multiplier, void *out, int32_t cols,
    int32_t row_stride, int32_t zero_point, int32_t col_stride, int32_t gap, const uint32_t *x_end, int32_t tail,
    int32_t whole, int32_t rows, int32_t skip, int32_t finish, int32_t shift, int32_t first) {
  TVMT_IN_ASSEMBLY((void)x, (void)w, (void)bias, (void)multiplier, (void)out, (void)cols, (void)row_stride,
                   (void)zero_point, (void)col_stride, (void)gap, (void)x_end, (void)tail, (void)whole, (void)rows,
                   (void)skip, (void)finish, (void)shift, (void)first)
  __asm__(
      "push {r0-r12, lr}\n\t"
      "ldrd r4, r5, [sp, #92]\n\t"  /* rows, skip */
      "ldrd r6, r7, [sp, #100]\n\t" /* finish, shift */
      "ldr r8, [sp, #84]\n\t"       /* tail */
      "adr.w r9, 9f\n\t"
      "orr r9, r9, #1\n\t" /* code addresses of Thumb */
      "sub r2, r9, #1\n\t"
      "ldrh r10, [r2, r4, lsl #1]\n\t"
      "add r3, r2, #14\n\t"
      "ldrb r11, [r3, r4]\n\t"
      "mla r10, r5, r11, r10\n\t"
      "add r10, r10, r9\n\t" /* the first step */
      TVMT_STRIP_ENTER
      "adr.w r11, 7f\n\t"
      "orr r11, r11, #1\n\t"
      "cmp r8, #0\n\t"
      "itt ne\n\t"
      "addne r10, r10, #4\n\t" /* the tail is the column's first word */
      "strne r10, [sp, #96]\n\t"
      "it eq\n\t"
      "moveq r11, r10\n\t"
      "str r11, [sp, #92]\n\t"
      "add r3, r2, #22\n\t" TVMT_STRIP_SELECT
      "ldrh r10, [r3, r6, lsl #1]\n\t" /* the finish */
      "add r10, r10, r9\n\t"
      "str r10, [sp, #100]\n\t"
      "adr.w r11, 8f\n\t"
      "orr r11, r11, #1\n\t"
      "cmp r7, #0\n\t"
      "it eq\n\t"
      "moveq r11, r10\n\t"
      "str r11, [sp, #4]\n\t"
      "add r3, r2, #30\n\t"
      "ldrh r10, [r3, r6, lsl #1]\n\t" /* its rows */
      "add r3, r2, #38\n\t"
      "ldrb r11, [r3, r6]\n\t"
      "rsb r4, r4, #6\n\t"
      "mla r10, r4, r11, r10\n\t"
      "add r10, r10, r9\n\t"
      "str r10, [sp, #48]\n\t"
      "cmp r6, #2\n\t"
      "bhs.w 2f\n"
      "1:\n\t" /* a column with a bias */
      "ldr r3, [sp, #8]\n\t"
      "ldr r0, [sp]\n\t"
      "ldr r4, [r3], #4\n\t"
      "str r3, [sp, #8]\n\t"
      "mov r5, r4\n\t"
      "mov r6, r4\n\t"
      "mov r7, r4\n\t"
      "mov r8, r4\n\t"
      "mov r9, r4\n\t"
      "ldr.w pc, [sp, #92]\n"
      "2:\n\t" /* a column without */
      "ldr r0, [sp]\n\t"
      "movs r4, #0\n\t"
      "movs r5, #0\n\t"
      "movs r6, #0\n\t"
      "movs r7, #0\n\t"
      "mov r8, r4\n\t"
      "mov r9, r4\n\t"
      "ldr.w pc, [sp, #92]\n"
      "7:\n\t" /* the bytes behind the whole words make the first step, whose other lanes of the strip are zero */
      "ldrd r10, r11, [sp, #84]\n\t"
      "add r3, r1, r11\n\t"
      "ldrb r2, [r3]\n\t"
      "cmp r10, #2\n\t"
      "blo 71f\n\t"
      "ldrb r11, [r3, #1]\n\t"
      "orr r2, r2, r11, lsl #8\n\t"
      "beq 71f\n\t"
      "ldrb r11, [r3, #2]\n\t"
      "orr r2, r2, r11, lsl #16\n"
      "71:\n\t"
      "ldr.w pc, [sp, #96]\n"
      "8:\n\t" /* shift */
      "ldr r2, [sp, #104]\n\t"
      "lsl r4, r4, r2\n\t"
      "lsl r5, r5, r2\n\t"
      "lsl r6, r6, r2\n\t"
      "lsl r7, r7, r2\n\t"
      "lsl r8, r8, r2\n\t"
      "lsl r9, r9, r2\n\t"
      "ldr.w pc, [sp, #100]\n\t"
      ".balign 4\n"
      "9:\n\t"
      TVMT_STRIP_TABLE /* 0: loops, 14: bytes of a step */
      ".short 30f - 9b, 31f - 9b, 32f - 9b, 33f - 9b\n\t"                        /* 22: finishes */
      ".short 40f - 9b, 41f - 9b, 42f - 9b, 43f - 9b\n\t"                        /* 30: their rows */
      ".byte 12, 8, 4, 16\n\t"                                                   /* 38: bytes of a row */
      TVMT_STRIP_MORE_TABLE TVMT_STRIP_STAGED_TABLE
      ".balign 2\n"
      "30:\n\t" TVMT_COLUMN_MULTIPLIER TVMT_OUTPUTS
      "40:\n\t" TVMT_ALL_ROWS(TVMT_ROW_S8) TVMT_NEXT_COLUMN("1b")
      "31:\n\t" TVMT_COLUMN_MULTIPLIER TVMT_OUTPUTS
      "41:\n\t" TVMT_ALL_ROWS(TVMT_ROW_S32) TVMT_NEXT_COLUMN("1b")
      "32:\n\t" TVMT_OUTPUTS
      "42:\n\t" TVMT_ALL_ROWS(TVMT_ROW_RAW) TVMT_NEXT_COLUMN("2b")
      "33:\n\t"
      "ldr r0, [sp, #12]\n\t" TVMT_OUTPUTS
      "43:\n\t" TVMT_ALL_ROWS(TVMT_ROW_ROW_S8) TVMT_NEXT_COLUMN("2b")
      TVMT_STRIP_STAGED_CODE TVMT_STRIP_LOOPS);
}

/* out: of row 0 and column 0, for the `rows` rows of x, which tvmt_widen_s8 or tvmt_widen_u8 made. */
TVMT_INLINE void tvmt_strip(const uint32_t *x, void *out, int32_t rows, const tvmt_columns *c, int finish) {
  const int32_t steps = (c->depth + 3) >> 2, whole = c->depth & ~3;
  tvmt_strip_loop(x, c->w, c->bias, c->multiplier, out, c->cols, c->row_stride, c->zero_point, c->col_stride,
                  c->w_stride - whole, x + 2 * rows * steps - TVMT_STRIP_AHEAD(rows), c->depth & 3, whole, rows,
                  TVMT_STRIP_SKIP(steps), finish, c->shift, 0);
}

#else

/* The product of row `row` and a column. */
TVMT_INLINE int32_t tvmt_strip_dot(const uint32_t *x, const int8_t *w, int32_t row, int32_t rows, int32_t depth,
                                   int32_t acc) {
  const int32_t words = depth >> 2, tail = depth & 3;
  if (tail != 0) {
    uint32_t word = 0;
    memcpy(&word, w + 4 * words, (size_t)tail);
    acc = tvmt_multiply_lanes(x[2 * row], tvmt_even_s8(word), acc);
    acc = tvmt_multiply_lanes(x[2 * row + 1], tvmt_odd_s8(word), acc);
    x += 2 * rows;
  }
  for (int32_t k = 0; k < words; k++) {
    const uint32_t word = tvmt_load_word(w + 4 * k);
    acc = tvmt_multiply_lanes(x[2 * (row + k * rows)], tvmt_even_s8(word), acc);
    acc = tvmt_multiply_lanes(x[2 * (row + k * rows) + 1], tvmt_odd_s8(word), acc);
  }
  return acc;
}

TVMT_INLINE void tvmt_strip(const uint32_t *x, void *out, int32_t rows, const tvmt_columns *c, int finish) {
  for (int32_t j = 0; j < c->cols; j++) {
    for (int32_t i = 0; i < rows; i++) {
      int8_t *y = (int8_t *)out + i * c->row_stride + j * c->col_stride;
      const int32_t start = c->bias != NULL ? c->bias[j] : 0;
      const int32_t acc = tvmt_strip_dot(x, c->w + j * c->w_stride, i, rows, c->depth, start);
      if (finish == TVMT_FINISH_RAW) {
        *(int32_t *)(void *)y = acc;
      } else {
        const int32_t multiplier = c->multiplier[finish == TVMT_FINISH_ROW_S8 ? i : j];
        const int32_t high = tvmt_multiply_high(tvmt_shift_left(acc, c->shift), multiplier);
        if (finish == TVMT_FINISH_S32) {
          *(int32_t *)(void *)y = high;
        } else {
          *y = tvmt_saturate_s8(high + c->zero_point);
        }
      }
    }
  }
}

#endif

#endif
