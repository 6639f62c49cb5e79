/* What the products of two matrices have in common: rows by two, columns by chunks. */
#ifndef TVMT_PRODUCTS_H
#define TVMT_PRODUCTS_H

#include "tvmt_dots.h"

/* Columns whose sums are kept at a time, where the result has no room for them. */
enum { TVMT_CHUNK_COLUMNS = 64 };

enum { TVMT_ROWS_S8 = 0, TVMT_ROWS_U8 = 1 };

/* Columns that are multiplied together: `count` from `first` on, a multiple of four, or one, four times over. */
typedef struct {
  int32_t first, count, stride;
} tvmt_chunk;

/* The columns from `done` on, at most `most`, a multiple of four. Where fewer than four are left they are computed with
 * some that are done already, or, where there are no four, each alone. */
TVMT_INLINE tvmt_chunk tvmt_next_chunk(int32_t done, int32_t cols, int32_t stride, int32_t most) {
  const int32_t left = cols - done;
  tvmt_chunk chunk = {done, left < most ? left & ~3 : most, stride};
  if (cols < TVMT_TILE_COLUMNS) {
    chunk.count = 1;
    chunk.stride = 0;
  } else if (left < TVMT_TILE_COLUMNS) {
    chunk.first = cols - TVMT_TILE_COLUMNS;
    chunk.count = TVMT_TILE_COLUMNS;
  }
  return chunk;
}

/* Rows that are multiplied together: a pair needs sixteen elements. */
TVMT_INLINE int32_t tvmt_rows_taken(int32_t rows, int32_t depth) {
  return rows > 1 && depth >= TVMT_TILE_DEPTH ? 2 : 1;
}

/* Two rows into a strip: sixteen elements of one, sixteen of the other, and so on, zeros behind the last.
 * strip: ceil(depth / 16) * 32 bytes, with 16 more that may be read; a workspace has them from a depth of 16 on. */
TVMT_INLINE void tvmt_pack_rows(int8_t *strip, const int8_t *x, int32_t depth, int32_t stride) {
  const int32_t tail = depth % TVMT_TILE_DEPTH;
  if (tail != 0) {
    memset(strip + (depth - tail) * 2, 0, 2 * TVMT_TILE_DEPTH);
  }
#if TVMT_MVE
  const int8_t *other = x + stride;
  __asm__ volatile(
      "dlstp.8 lr, %[depth]\n"
      "1:\n\t"
      "vldrb.u8 q0, [%[x]], #16\n\t"
      "vstrb.8 q0, [%[strip]], #16\n\t"
      "vldrb.u8 q1, [%[other]], #16\n\t"
      "vstrb.8 q1, [%[strip]], #16\n\t"
      "letp lr, 1b"
      : [strip] "+&r"(strip), [x] "+&r"(x), [other] "+&r"(other)
      : [depth] "r"(depth)
      : "q0", "q1", "lr", "memory");
#else
  for (int32_t k = 0; k < depth; k += TVMT_TILE_DEPTH) {
    const int32_t count = depth - k < TVMT_TILE_DEPTH ? depth - k : TVMT_TILE_DEPTH;
    for (int32_t i = 0; i < 2; i++) {
      memcpy(strip, x + i * stride + k, (size_t)count);
      strip += TVMT_TILE_DEPTH;
    }
  }
#endif
}

/* What tvmt_multiply reads of `rows` rows: the row, or the strip of both, in the workspace. */
TVMT_INLINE const void *tvmt_prepare_rows(int16_t *workspace, const void *x, int32_t rows, int32_t depth,
                                          int32_t stride) {
  if (rows == 1) {
    return x;
  }
  tvmt_pack_rows((int8_t *)(void *)workspace, (const int8_t *)x, depth, stride);
  return workspace;
}

/* Sums of one or two prepared rows with the columns of a chunk; of a chunk of one column they are written four times.
 * acc: those of the first row; other: of the second. */
TVMT_INLINE void tvmt_multiply(int32_t *acc, int32_t *other, const void *prepared, int32_t rows, const int8_t *columns,
                               int32_t depth, tvmt_chunk chunk, int32_t stride, int rows_type) {
  const int8_t *from = columns + chunk.first * stride, *end = from + chunk.count * chunk.stride;
  if (rows == 2) {
    (rows_type == TVMT_ROWS_U8 ? tvmt_dots_2x4_u8 : tvmt_dots_2x4_s8)(prepared, chunk.stride, from, depth, acc, other,
                                                                      end);
  } else {
    (rows_type == TVMT_ROWS_U8 ? tvmt_dots_1x4_u8 : tvmt_dots_1x4_s8)(prepared, chunk.stride, from, depth, acc, end);
  }
}

#endif
