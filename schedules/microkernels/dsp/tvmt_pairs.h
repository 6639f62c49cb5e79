/* Products of strips of four widened rows with pairs of int8 columns: the inner loop of every matrix product whose
 * columns may be laid out for it.
 *
 * Two columns lie interleaved: byte 2 * k + c of a pair is element k of its column c. A word then holds two elements of
 * both columns, and two extensions make of it what eight SMLAD multiply with four rows: 14 instructions and 17 cycles
 * of a Cortex-M4 for 16 products. Columns that are int16 already, two elements of one and then two of the other, need
 * no extension: 12 instructions in 16.5 cycles. Rows are widened once, to words of two elements, in the order in which
 * the loop reads them (tvmt_widen_pairs.h). Sums are modulo 2**32, so only the final value has to fit an int32_t.
 */
#ifndef TVMT_PAIRS_H
#define TVMT_PAIRS_H

#include "tvmt_pairs_loop.h"
#include "tvmt_widen_pairs.h"

/* Rows of a strip; tvmtiny.schedule.rules sizes the workspace for it. */
enum { TVMT_PAIR_ROWS = 4 };

/* Columns and where their products with rows go: row i and column j at
 * (i >> 1) * two_rows + (i & 1) * row + (j >> 1) * two_cols bytes, and the second column of a pair behind the first. */
typedef struct {
  const void *w;             /* pairs of columns: `depth` elements, filled up to a multiple of four; 4-byte aligned */
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

/* One pair of columns j and, if there is one, j + 1. */
TVMT_INLINE void tvmt_pairs_one(const uint32_t *x, const uint32_t *end, int8_t *out, int32_t rows, int32_t j,
                                const tvmt_pairs *c, int finish, int wide) {
  const int32_t both = j + 1 < c->cols ? 1 : 0;
  const int32_t first = c->bias != NULL ? c->bias[j] : 0, second = c->bias != NULL ? c->bias[j + both] : 0;
  int32_t acc[2 * TVMT_PAIR_ROWS] = {first, second, first, second, first, second, first, second};
  int8_t *pair = out + (j >> 1) * c->two_cols;
  const int8_t *w = (const int8_t *)c->w + (j >> 1) * c->w_stride;
  if (wide) {
    tvmt_pairs_sums_s16(x, w, acc, end, rows);
  } else {
    tvmt_pairs_sums_s8(x, w, acc, end, rows);
  }
  for (int32_t i = 0; i < rows; i++) {
    int8_t *y = pair + (i >> 1) * c->two_rows + (i & 1) * c->row;
    tvmt_pairs_finish(y, acc[2 * i], i, j, c, finish);
    if (both != 0) {
      tvmt_pairs_finish(y + tvmt_pairs_second(finish), acc[2 * i + 1], i, j + 1, c, finish);
    }
  }
}

#if TVMT_DSP

/* Four rows with `pairs` pairs of columns. */
TVMT_INLINE void tvmt_pairs_four_rows(const uint32_t *x, void *out, int32_t pairs, const tvmt_pairs *c, int finish,
                                      int wide) {
  const int32_t steps = 2 * ((c->depth + 3) >> 2), word = wide ? 8 : 4;
  const int32_t skip = TVMT_PAIR_STEPS - 1 - (int32_t)((uint32_t)(steps - 1) % TVMT_PAIR_STEPS);
  const uintptr_t from = (uintptr_t)x - 8U, w = (uintptr_t)c->w - (uintptr_t)(word * (skip + 1));
  const int32_t gap = c->w_stride - word * (steps + skip);
  const int32_t bytes = (skip >> 1) * (wide ? TVMT_PAIRS_BYTES_S16 : TVMT_PAIRS_BYTES_S8);
  if (wide) {
    tvmt_pairs_loop_s16(from - (uintptr_t)(16 * skip), w, c->bias, c->multiplier, c->zero_point, out, c->row,
                        c->two_rows, c->two_cols, pairs, gap, from + (uintptr_t)(16 * steps), bytes, finish, c->shift,
                        c->table);
  } else {
    tvmt_pairs_loop_s8(from - (uintptr_t)(16 * skip), w, c->bias, c->multiplier, c->zero_point, out, c->row,
                       c->two_rows, c->two_cols, pairs, gap, from + (uintptr_t)(16 * steps), bytes, finish, c->shift,
                       c->table);
  }
}

#endif

/* What becomes of 1 to 4 rows, widened at x, and all columns. out: of row 0 and column 0. wide: the columns are int16.
 */
TVMT_INLINE void tvmt_pairs_rows(const uint32_t *x, void *out, int32_t rows, const tvmt_pairs *c, int finish,
                                 int wide) {
  const uint32_t *end = x + 2 * ((c->depth + 3) >> 2) * rows;
  int32_t j = 0;
#if TVMT_DSP
  if (rows == TVMT_PAIR_ROWS && c->cols > 1) {
    tvmt_pairs_four_rows(x, out, c->cols >> 1, c, finish, wide);
    j = c->cols & ~1;
  }
#endif
  for (; j < c->cols; j += 2) {
    tvmt_pairs_one(x, end, (int8_t *)out, rows, j, c, finish, wide);
  }
}

/* What becomes of the next 1 to 4 of `rows` rows; returns how many. x: rows of int8 (or uint8), `x_stride` bytes apart.
 * strip: memory for them, widened.
 *
 * Three rows are widened as four, the middle one twice, and written as four: the second and third to the same place. A
 * strip of four is the fastest. Where rows do not lie evenly (KEYS_S8), they are taken as three.
 */
TVMT_INLINE int32_t tvmt_pairs_take(uint32_t *strip, const uint8_t *x, void *out, int32_t rows, int32_t x_stride,
                                    const tvmt_pairs *c, int finish, int wide, int is_signed) {
  const int32_t taken = rows > TVMT_PAIR_ROWS ? TVMT_PAIR_ROWS : rows;
  int32_t strip_rows = taken, two_rows = 2 * x_stride;
  const tvmt_pairs *columns = c;
  tvmt_pairs overlapping;
  if (taken == 3 && c->two_rows == 2 * c->row) {
    overlapping = *c;
    overlapping.two_rows = c->row;
    columns = &overlapping;
    strip_rows = TVMT_PAIR_ROWS;
    two_rows = x_stride;
  }
  if (is_signed) {
    tvmt_widen_pairs_s8(strip, x, strip_rows, x_stride, two_rows, c->depth);
  } else {
    tvmt_widen_pairs_u8(strip, x, strip_rows, x_stride, two_rows, c->depth);
  }
  tvmt_pairs_rows(strip, out, strip_rows, columns, finish, wide);
  return taken;
}

/* The same with int8 columns. */
TVMT_SHARED TVMT_CODE_SECTION int32_t tvmt_pairs_strip(uint32_t *strip, const uint8_t *x,
                                                                                   void *out, int32_t rows,
                                                                                   int32_t x_stride,
                                                                                   const tvmt_pairs *c, int finish,
                                                                                   int is_signed) {
  return tvmt_pairs_take(strip, x, out, rows, x_stride, c, finish, 0, is_signed);
}

#endif
