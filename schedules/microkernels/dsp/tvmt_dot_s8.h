/* Dot products of int8 (or uint8) rows with int8 columns, in tiles: the inner loop of every matrix product.
 *
 * Four bytes of each operand are loaded at once and widened to 16-bit lanes on the fly. Two rows by two columns take
 * 20 instructions for 16 products.
 * Sums are modulo 2**32, so only the final value has to fit an int32_t. No alignment is needed.
 */
#ifndef TVMT_DOT_S8_H
#define TVMT_DOT_S8_H

#include "tvmt_simd.h"

/* Two columns and their accumulators with rows a and b. The assembly below relies on this order. */
typedef struct {
  int32_t row_stride;    /* elements from row a to row b */
  const int8_t *w0, *w1; /* columns */
  const int8_t *end;     /* of the whole words of w0 */
  int32_t start[4];      /* of a0, a1, b0, b1 */
  uint32_t skip;         /* steps to leave out of the first turn of the unrolled loop */
  int32_t tail;          /* bytes behind the whole words */
  int32_t a0, a1, b0, b1;
} tvmt_tile;

/* How the bytes of a row are read. */
enum { TVMT_ROWS_S8 = 0, TVMT_ROWS_U8 = 1 };

/* Steps of four elements in the unrolled loop. */
enum { TVMT_DOT_STEPS = 8 };

/* Chooses columns of `depth` elements, what their accumulators start from, and the distance of the rows. */
TVMT_INLINE void tvmt_tile_columns(tvmt_tile *tile, const int8_t *w0, const int8_t *w1, int32_t depth, int32_t start0,
                                   int32_t start1, int32_t row_stride) {
  const uint32_t steps = (uint32_t)depth >> 2;
  tile->row_stride = row_stride;
  tile->w0 = w0;
  tile->w1 = w1;
  tile->end = w0 + 4U * steps;
  tile->start[0] = start0;
  tile->start[1] = start1;
  tile->start[2] = start0;
  tile->start[3] = start1;
  tile->skip = steps == 0U ? (uint32_t)TVMT_DOT_STEPS : (0U - steps) % (uint32_t)TVMT_DOT_STEPS;
  tile->tail = depth & 3;
}

TVMT_INLINE uint32_t tvmt_row_even(uint32_t word, int rows_type) {
  return rows_type == TVMT_ROWS_U8 ? tvmt_even_u8(word) : tvmt_even_s8(word);
}

TVMT_INLINE uint32_t tvmt_row_odd(uint32_t word, int rows_type) {
  return rows_type == TVMT_ROWS_U8 ? tvmt_odd_u8(word) : tvmt_odd_s8(word);
}

TVMT_INLINE int32_t tvmt_row_byte(const uint8_t *x, int rows_type) {
  return rows_type == TVMT_ROWS_U8 ? (int32_t)*x : (int32_t)(int8_t)*x;
}

#if TVMT_DSP

/* Written whole in assembly: the loop needs all fourteen registers, more than a compiler grants an inline statement
 * when it keeps a frame pointer. The compiler must not reason about arguments and registers of such a function.
 */
#if defined(__clang__)
#define TVMT_ASSEMBLY __attribute__((naked, noinline))
#else
#define TVMT_ASSEMBLY __attribute__((naked, noinline, noipa))
#endif

/* r1, r2: rows; r3, r4: columns; r6 to r9: accumulators a0, a1, b0, b1; the others hold lanes. EXTEND widens rows. */
#define TVMT_STEP_2X2(EXTEND)                                         \
  "ldr r10, [r1], #4\n\t"                                             \
  "ldr r12, [r2], #4\n\t"                                             \
  "ldr r0, [r3], #4\n\t" EXTEND " r11, r10, ror #8\n\t"               \
  EXTEND " r10, r10\n\t" EXTEND " lr, r12, ror #8\n\t"                \
  EXTEND " r12, r12\n\t"                                              \
  "sxtb16 r5, r0, ror #8\n\t"                                         \
  "sxtb16 r0, r0\n\t"                                                 \
  "smlad r6, r11, r5, r6\n\t"                                         \
  "smlad r8, lr, r5, r8\n\t"                                          \
  "smlad r6, r10, r0, r6\n\t"                                         \
  "smlad r8, r12, r0, r8\n\t"                                         \
  "ldr r0, [r4], #4\n\t"                                              \
  "sxtb16 r5, r0, ror #8\n\t"                                         \
  "sxtb16 r0, r0\n\t"                                                 \
  "smlad r7, r11, r5, r7\n\t"                                         \
  "smlad r9, lr, r5, r9\n\t"                                          \
  "smlad r7, r10, r0, r7\n\t"                                         \
  "smlad r9, r12, r0, r9\n\t"

/* r1: row; r3, r4: columns; r6, r7: accumulators a0, a1; the others hold lanes. */
#define TVMT_STEP_1X2(EXTEND)                             \
  "ldr r10, [r1], #4\n\t"                                 \
  "ldr r0, [r3], #4\n\t"                                  \
  "ldr r12, [r4], #4\n\t" EXTEND " r11, r10, ror #8\n\t"  \
  EXTEND " r10, r10\n\t"                                  \
  "sxtb16 r5, r0, ror #8\n\t"                             \
  "sxtb16 r0, r0\n\t"                                     \
  "sxtb16 lr, r12, ror #8\n\t"                            \
  "sxtb16 r12, r12\n\t"                                   \
  "smlad r6, r11, r5, r6\n\t"                             \
  "smlad r7, r11, lr, r7\n\t"                             \
  "smlad r6, r10, r0, r6\n\t"                             \
  "smlad r7, r10, r12, r7\n\t"

/* Adds up all whole words of a tile and returns its tail. Enters the unrolled loop in its middle, so that any number
 * of words needs one loop only. */
#define TVMT_DOT_LOOP(STEP, EXTEND)                                       \
  "push {r4-r11, lr}\n\t"                                                 \
  "ldm r0!, {r2-r11}\n\t" /* row_stride to tail; r0: accumulators */      \
  "add r2, r2, r1\n\t"                                                    \
  "push {r0, r5, r11}\n\t"                                                \
  "tbh [pc, r10, lsl #1]\n"                                               \
  "1:\n\t"                                                        \
  ".short (20f - 1b) / 2, (21f - 1b) / 2, (22f - 1b) / 2\n\t"     \
  ".short (23f - 1b) / 2, (24f - 1b) / 2, (25f - 1b) / 2\n\t"     \
  ".short (26f - 1b) / 2, (27f - 1b) / 2, (28f - 1b) / 2\n"       \
  "20:\n\t" STEP(EXTEND) "21:\n\t" STEP(EXTEND)                   \
  "22:\n\t" STEP(EXTEND) "23:\n\t" STEP(EXTEND)                   \
  "24:\n\t" STEP(EXTEND) "25:\n\t" STEP(EXTEND)                   \
  "26:\n\t" STEP(EXTEND) "27:\n\t" STEP(EXTEND)                   \
  "28:\n\t"                                                       \
  "ldr r5, [sp, #4]\n\t"                                                  \
  "cmp r3, r5\n\t"                                                        \
  "bne 20b\n\t"                                                           \
  "pop {r0, r5, r11}\n\t"                                                 \
  "stm r0, {r6-r9}\n\t"                                                   \
  "mov r0, r11\n\t"                                                       \
  "pop {r4-r11, pc}\n"

TVMT_FUNCTION TVMT_ASSEMBLY TVMT_CODE_SECTION int32_t tvmt_words_2x2_s8(tvmt_tile *tile, const uint8_t *a) {
  (void)tile, (void)a;
  __asm__(TVMT_DOT_LOOP(TVMT_STEP_2X2, "sxtb16"));
}

TVMT_FUNCTION TVMT_ASSEMBLY TVMT_CODE_SECTION int32_t tvmt_words_2x2_u8(tvmt_tile *tile, const uint8_t *a) {
  (void)tile, (void)a;
  __asm__(TVMT_DOT_LOOP(TVMT_STEP_2X2, "uxtb16"));
}

TVMT_FUNCTION TVMT_ASSEMBLY TVMT_CODE_SECTION int32_t tvmt_words_1x2_s8(tvmt_tile *tile, const uint8_t *a) {
  (void)tile, (void)a;
  __asm__(TVMT_DOT_LOOP(TVMT_STEP_1X2, "sxtb16"));
}

TVMT_FUNCTION TVMT_ASSEMBLY TVMT_CODE_SECTION int32_t tvmt_words_1x2_u8(tvmt_tile *tile, const uint8_t *a) {
  (void)tile, (void)a;
  __asm__(TVMT_DOT_LOOP(TVMT_STEP_1X2, "uxtb16"));
}

TVMT_INLINE int32_t tvmt_words_2x2(tvmt_tile *tile, const uint8_t *a, int rows_type) {
  return rows_type == TVMT_ROWS_U8 ? tvmt_words_2x2_u8(tile, a) : tvmt_words_2x2_s8(tile, a);
}

TVMT_INLINE int32_t tvmt_words_1x2(tvmt_tile *tile, const uint8_t *a, int rows_type) {
  return rows_type == TVMT_ROWS_U8 ? tvmt_words_1x2_u8(tile, a) : tvmt_words_1x2_s8(tile, a);
}

#else

TVMT_INLINE int32_t tvmt_words(tvmt_tile *tile, const uint8_t *a, const uint8_t *b, int rows_type) {
  const int8_t *w0 = tile->w0, *w1 = tile->w1;
  int32_t a0 = tile->start[0], a1 = tile->start[1], b0 = tile->start[2], b1 = tile->start[3];
  for (; w0 != tile->end; a += 4, b += 4, w0 += 4, w1 += 4) {
    const uint32_t word_a = tvmt_load_word(a), word_b = tvmt_load_word(b);
    const uint32_t even_a = tvmt_row_even(word_a, rows_type), odd_a = tvmt_row_odd(word_a, rows_type);
    const uint32_t even_b = tvmt_row_even(word_b, rows_type), odd_b = tvmt_row_odd(word_b, rows_type);
    const uint32_t word0 = tvmt_load_word(w0), even0 = tvmt_even_s8(word0), odd0 = tvmt_odd_s8(word0);
    const uint32_t word1 = tvmt_load_word(w1), even1 = tvmt_even_s8(word1), odd1 = tvmt_odd_s8(word1);
    a0 = tvmt_multiply_lanes(even_a, even0, tvmt_multiply_lanes(odd_a, odd0, a0));
    a1 = tvmt_multiply_lanes(even_a, even1, tvmt_multiply_lanes(odd_a, odd1, a1));
    b0 = tvmt_multiply_lanes(even_b, even0, tvmt_multiply_lanes(odd_b, odd0, b0));
    b1 = tvmt_multiply_lanes(even_b, even1, tvmt_multiply_lanes(odd_b, odd1, b1));
  }
  tile->a0 = a0;
  tile->a1 = a1;
  tile->b0 = b0;
  tile->b1 = b1;
  return tile->tail;
}

TVMT_INLINE int32_t tvmt_words_2x2(tvmt_tile *tile, const uint8_t *a, int rows_type) {
  return tvmt_words(tile, a, a + tile->row_stride, rows_type);
}

TVMT_INLINE int32_t tvmt_words_1x2(tvmt_tile *tile, const uint8_t *a, int rows_type) {
  return tvmt_words(tile, a, a, rows_type);
}

#endif

/* The bytes behind the whole words, in a function of its own: rare, and it would take the callers' registers. */
TVMT_FUNCTION TVMT_CODE_SECTION __attribute__((noinline)) void tvmt_dot_tail(tvmt_tile *tile, const uint8_t *a,
                                                                             const uint8_t *b, int rows_type) {
  const int32_t whole = (int32_t)(tile->end - tile->w0);
  for (int32_t k = 0; k < tile->tail; k++) {
    const int32_t xa = tvmt_row_byte(a + whole + k, rows_type), xb = tvmt_row_byte(b + whole + k, rows_type);
    const int32_t y0 = tile->end[k], y1 = tile->w1[whole + k];
    tile->a0 = tvmt_add(tile->a0, xa * y0);
    tile->a1 = tvmt_add(tile->a1, xa * y1);
    tile->b0 = tvmt_add(tile->b0, xb * y0);
    tile->b1 = tvmt_add(tile->b1, xb * y1);
  }
}

/* Accumulators of row a and the row `row_stride` behind it: tile->a0 to tile->b1. */
TVMT_INLINE void tvmt_dot_2x2(tvmt_tile *tile, const uint8_t *a, int rows_type) {
  if (tvmt_words_2x2(tile, a, rows_type) != 0) {
    tvmt_dot_tail(tile, a, a + tile->row_stride, rows_type);
  }
}

/* Accumulators of row a alone: tile->a0 and tile->a1. */
TVMT_INLINE void tvmt_dot_1x2(tvmt_tile *tile, const uint8_t *a, int rows_type) {
  if (tvmt_words_1x2(tile, a, rows_type) != 0) {
    tvmt_dot_tail(tile, a, a, rows_type);
  }
}

#endif
