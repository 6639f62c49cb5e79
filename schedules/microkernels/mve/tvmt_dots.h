/* Dot products of one or two rows with columns, four columns at a time: the inner loop of every matrix product.
 *
 * VMLADAVA multiplies sixteen pairs of bytes and adds all products to an even core register. Two rows and four columns
 * take all eight of these registers, and share six loads among eight multiplications.
 *
 * acc: where the sums of the row go, one a column; other: those of the second row. columns: the first of a multiple of
 * four up to `end`, `stride` bytes apart, `depth` bytes each; with stride 0, one column four times. Nothing outside the
 * columns is read. Sums are modulo 2**32.
 *
 * Bytes are signed in the functions _s8. In _u8 the rows are unsigned, and the columns are taken as unsigned too, plus
 * 128: MVE has no product of mixed signs. The sum is then 128 * sum(row) too large.
 */
#ifndef TVMT_DOTS_H
#define TVMT_DOTS_H

#include "tvmt_arith.h"
#include "tvmt_assembly.h"

enum { TVMT_TILE_COLUMNS = 4, TVMT_TILE_DEPTH = 16 };

#if TVMT_MVE

/* Nothing to do to a column that is signed; the other kind gets 128 added. q6: sixteen times 0x80. */
#define TVMT_AS_IT_IS(Q)
#define TVMT_PLUS_128(Q) "veor " Q ", " Q ", q6\n\t"

/* Sixteen elements of two rows and four columns. r1: strip; r3, r5, r7, r9: columns; q0: the first row. Loads and
 * multiplications alternate, so that both units work at once, and nothing is needed directly after its load: the last
 * product of a step (TVMT_LAST_2X4) is left to what follows, and q0 of the next step is loaded, behind the last step
 * from the end of the strip. BETWEEN: what stands between the first two loads. */
#define TVMT_STEP_2X4(BETWEEN, MAC, SIGN)          \
  "vldrb.u8 q2, [r3], #16\n\t"                     \
  BETWEEN                                          \
  "vldrb.u8 q3, [r5], #16\n\t" SIGN("q2")          \
  MAC " r0, q2, q0\n\t"                            \
  "vldrb.u8 q4, [r7], #16\n\t" SIGN("q3")          \
  MAC " r2, q3, q0\n\t"                            \
  "vldrb.u8 q5, [r9], #16\n\t" SIGN("q4")          \
  MAC " r4, q4, q0\n\t"                            \
  "vldrb.u8 q1, [r1], #16\n\t" SIGN("q5")          \
  MAC " r6, q5, q0\n\t"                            \
  "vldrb.u8 q0, [r1], #16\n\t"                     \
  MAC " r8, q2, q1\n\t"                            \
  MAC " r10, q3, q1\n\t"                           \
  MAC " r12, q4, q1\n\t"
#define TVMT_LAST_2X4(KIND) "vmladava." KIND " lr, q5, q1\n\t"
#define TVMT_NEXT_2X4(KIND, SIGN) TVMT_STEP_2X4(TVMT_LAST_2X4(KIND), "vmladava." KIND, SIGN)
/* The last depth % 16 elements; the strip holds zeros behind them. */
#define TVMT_TAIL_2X4(MAC, SIGN)                   \
  "vpstttt\n\t"                                    \
  "vldrbt.u8 q2, [r3]\n\t"                         \
  "vldrbt.u8 q3, [r5]\n\t"                         \
  "vldrbt.u8 q4, [r7]\n\t"                         \
  "vldrbt.u8 q5, [r9]\n\t"                         \
  SIGN("q2") SIGN("q3") SIGN("q4") SIGN("q5")      \
  MAC " r0, q2, q0\n\t"                            \
  "vldrb.u8 q1, [r1]\n\t"                          \
  MAC " r2, q3, q0\n\t"                            \
  MAC " r4, q4, q0\n\t"                            \
  MAC " r6, q5, q0\n\t"                            \
  MAC " r8, q2, q1\n\t"                            \
  MAC " r10, q3, q1\n\t"                           \
  MAC " r12, q4, q1\n\t"

/* r0: strip; r1: stride; r2: columns; r3: depth. On the stack, from sp on: strip, stride, passes of the loop, where to
 * enter it, what follows it, from the end of the last column to the next one, end, depth % 16; at 32 the saved registers,
 * at 116 the arguments acc, other, end. The first step of a tile writes the accumulators; the others are a loop of eight,
 * each of STEP_BYTES, which is entered in its middle where their number is not a multiple of eight. */
#define TVMT_DOTS_2X4(KIND, SIGN, STEP_BYTES)                                        \
  __asm__(                                                                           \
      "push {r4-r11, lr}\n\t"                                                        \
      "vpush {d8-d13}\n\t"                                                           \
      "vmov.i8 q6, #0x80\n\t"                                                        \
      "and r9, r3, #15\n\t"                                                          \
      "lsr r8, r3, #4\n\t"                                                           \
      "sub r7, r1, r8, lsl #4\n\t"                                                   \
      "mov r3, r2\n\t"                                                               \
      "adr.w r6, 4f\n\t"                                                             \
      "cmp r9, #0\n\t"                                                               \
      "bne 1f\n\t"                                                                   \
      "adr.w r6, 5f\n"                                                               \
      "1:\n\t"                                                                       \
      "add r6, r6, #1\n\t"                                                           \
      "mov r5, r6\n\t"                                                               \
      "subs r8, r8, #1\n\t"                                                          \
      "beq 1f\n\t"                                                                   \
      "adr.w r5, 3f\n\t"                                                             \
      "add r5, r5, #1\n\t"                                                           \
      "rsb r10, r8, #0\n\t"                                                          \
      "and r10, r10, #7\n\t"                                                         \
      "mov r11, #" STEP_BYTES "\n\t"                                                 \
      "mla r5, r10, r11, r5\n"                                                       \
      "1:\n\t"                                                                       \
      "add r4, r8, #7\n\t"                                                           \
      "lsr r4, r4, #3\n\t"                                                           \
      "ldr r8, [sp, #92]\n\t"                                                        \
      "push {r0, r1, r4-r9}\n"                                                       \
      "2:\n\t" /* a tile */                                                          \
      "ldrd r1, r11, [sp]\n\t"                                                       \
      "add r5, r3, r11\n\t"                                                          \
      "vldrb.u8 q0, [r1], #16\n\t"                                                   \
      "add r7, r5, r11\n\t"                                                          \
      "add r9, r7, r11\n\t"                                                          \
      TVMT_STEP_2X4("mov lr, #0\n\t", "vmladav." KIND, SIGN)                         \
      "ldr r11, [sp, #8]\n\t"                                                        \
      "ldr pc, [sp, #12]\n"                                                          \
      "3:\n\t" /* its loop */                                                        \
      TVMT_NEXT_2X4(KIND, SIGN) TVMT_NEXT_2X4(KIND, SIGN)                            \
      TVMT_NEXT_2X4(KIND, SIGN) TVMT_NEXT_2X4(KIND, SIGN)                            \
      TVMT_NEXT_2X4(KIND, SIGN) TVMT_NEXT_2X4(KIND, SIGN)                            \
      TVMT_NEXT_2X4(KIND, SIGN) TVMT_NEXT_2X4(KIND, SIGN)                            \
      "subs r11, r11, #1\n\t"                                                        \
      "bne.w 3b\n\t"                                                                 \
      "ldr pc, [sp, #16]\n"                                                          \
      "4:\n\t"                                                                       \
      "ldr r11, [sp, #28]\n\t"                                                       \
      "vctp.8 r11\n\t" TVMT_LAST_2X4(KIND)                                           \
      TVMT_TAIL_2X4("vmladava." KIND, SIGN)                                          \
      "5:\n\t" /* its end */                                                         \
      "ldrd r5, r11, [sp, #20]\n\t" TVMT_LAST_2X4(KIND)                              \
      "add r3, r9, r5\n\t"                                                           \
      "ldrd r1, r7, [sp, #116]\n\t"                                                  \
      "cmp r3, r11\n\t"                                                              \
      "stm r1!, {r0, r2, r4, r6}\n\t"                                                \
      "stm r7!, {r8, r10, r12, lr}\n\t"                                              \
      "strd r1, r7, [sp, #116]\n\t"                                                  \
      "bne.w 2b\n\t"                                                                 \
      "add sp, sp, #32\n\t"                                                          \
      "vpop {d8-d13}\n\t"                                                            \
      "pop {r4-r11, pc}\n")

/* r0: row; r1: stride; r2: columns; r3: depth; on the stack, behind the next word and r4 to lr: acc, end. */
#define TVMT_DOTS_1X4(KIND, SIGN)                                                    \
  __asm__(                                                                           \
      "push {r4-r11, lr}\n\t"                                                        \
      "vpush {d12-d13}\n\t"                                                          \
      "vmov.i8 q6, #0x80\n\t"                                                        \
      "mov r8, r0\n\t"                                                               \
      "mov r10, r1\n\t"                                                              \
      "mov r11, r3\n\t"                                                              \
      "add r4, r3, #15\n\t"                                                          \
      "bic r4, r4, #15\n\t"                                                          \
      "sub r4, r1, r4\n\t"                                                           \
      "push {r4}\n\t"                                                                \
      "mov r3, r2\n\t"                                                               \
      "ldr r12, [sp, #56]\n"                                                         \
      "1:\n\t" /* a tile */                                                          \
      "mov r1, r8\n\t"                                                               \
      "add r5, r3, r10\n\t"                                                          \
      "add r7, r5, r10\n\t"                                                          \
      "add r9, r7, r10\n\t"                                                          \
      "mov r0, #0\n\t"                                                               \
      "mov r2, #0\n\t"                                                               \
      "mov r4, #0\n\t"                                                               \
      "mov r6, #0\n\t"                                                               \
      "dlstp.8 lr, r11\n"                                                            \
      "2:\n\t"                                                                       \
      "vldrb.u8 q0, [r1], #16\n\t"                                                   \
      "vldrb.u8 q1, [r3], #16\n\t" SIGN("q1")                                        \
      "vmladava." KIND " r0, q1, q0\n\t"                                             \
      "vldrb.u8 q2, [r5], #16\n\t" SIGN("q2")                                        \
      "vmladava." KIND " r2, q2, q0\n\t"                                             \
      "vldrb.u8 q1, [r7], #16\n\t" SIGN("q1")                                        \
      "vmladava." KIND " r4, q1, q0\n\t"                                             \
      "vldrb.u8 q2, [r9], #16\n\t" SIGN("q2")                                        \
      "vmladava." KIND " r6, q2, q0\n\t"                                             \
      "letp lr, 2b\n\t"                                                              \
      "stm r12!, {r0, r2, r4, r6}\n\t"                                               \
      "ldr r0, [sp]\n\t"                                                             \
      "ldr r1, [sp, #60]\n\t"                                                        \
      "add r3, r9, r0\n\t"                                                           \
      "cmp r3, r1\n\t"                                                               \
      "bne 1b\n\t"                                                                   \
      "add sp, sp, #4\n\t"                                                           \
      "vpop {d12-d13}\n\t"                                                           \
      "pop {r4-r11, pc}\n")

/* A naked function has nothing but its assembly, which finds the arguments where the calling convention puts them. */
#define TVMT_DOTS_FUNCTION TVMT_ASSEMBLY TVMT_CODE_SECTION void

/* Two rows, depth >= 16. strip: written by tvmt_pack_rows. */
TVMT_DOTS_FUNCTION tvmt_dots_2x4_s8(const void *row, int32_t stride,
                                    const int8_t *columns, int32_t depth,
                                    int32_t *acc, int32_t *other,
                                    const int8_t *end) {
  TVMT_IN_ASSEMBLY((void)row, (void)stride, (void)columns, (void)depth, (void)acc, (void)other, (void)end)
  TVMT_DOTS_2X4("s8", TVMT_AS_IT_IS, "56");
}

TVMT_DOTS_FUNCTION tvmt_dots_2x4_u8(const void *row, int32_t stride,
                                    const int8_t *columns, int32_t depth,
                                    int32_t *acc, int32_t *other,
                                    const int8_t *end) {
  TVMT_IN_ASSEMBLY((void)row, (void)stride, (void)columns, (void)depth, (void)acc, (void)other, (void)end)
  TVMT_DOTS_2X4("u8", TVMT_PLUS_128, "72");
}

/* One row of any depth. */
TVMT_DOTS_FUNCTION tvmt_dots_1x4_s8(const void *row, int32_t stride,
                                    const int8_t *columns, int32_t depth,
                                    int32_t *acc, const int8_t *end) {
  TVMT_IN_ASSEMBLY((void)row, (void)stride, (void)columns, (void)depth, (void)acc, (void)end)
  TVMT_DOTS_1X4("s8", TVMT_AS_IT_IS);
}

TVMT_DOTS_FUNCTION tvmt_dots_1x4_u8(const void *row, int32_t stride,
                                    const int8_t *columns, int32_t depth,
                                    int32_t *acc, const int8_t *end) {
  TVMT_IN_ASSEMBLY((void)row, (void)stride, (void)columns, (void)depth, (void)acc, (void)end)
  TVMT_DOTS_1X4("u8", TVMT_PLUS_128);
}

#else

/* The row itself, or row i of a strip: both are one after the other in every sixteen elements. */
TVMT_INLINE int32_t tvmt_dot(const uint8_t *row, int32_t rows, int32_t i, const int8_t *column, int32_t depth,
                             int is_unsigned) {
  int32_t sum = 0;
  for (int32_t k = 0; k < depth; k++) {
    const uint8_t byte = row[rows == 1 ? k : (k / TVMT_TILE_DEPTH * 2 + i) * TVMT_TILE_DEPTH + k % TVMT_TILE_DEPTH];
    sum = tvmt_add(sum, is_unsigned ? (int32_t)byte * (column[k] + 128) : (int32_t)(int8_t)byte * column[k]);
  }
  return sum;
}

#define TVMT_DOTS_TWINS(KIND, IS_UNSIGNED)                                                                            \
  TVMT_FUNCTION void tvmt_dots_2x4_##KIND(const void *row, int32_t stride, const int8_t *columns, int32_t depth,     \
                                          int32_t *acc, int32_t *other, const int8_t *end) {                         \
    do {                                                                                                              \
      for (int32_t j = 0; j < TVMT_TILE_COLUMNS; j++, columns += stride) {                                            \
        *acc++ = tvmt_dot((const uint8_t *)row, 2, 0, columns, depth, IS_UNSIGNED);                                   \
        *other++ = tvmt_dot((const uint8_t *)row, 2, 1, columns, depth, IS_UNSIGNED);                                 \
      }                                                                                                               \
    } while (columns != end);                                                                                         \
  }                                                                                                                   \
  TVMT_FUNCTION void tvmt_dots_1x4_##KIND(const void *row, int32_t stride, const int8_t *columns, int32_t depth,     \
                                          int32_t *acc, const int8_t *end) {                                         \
    do {                                                                                                              \
      for (int32_t j = 0; j < TVMT_TILE_COLUMNS; j++, columns += stride) {                                            \
        *acc++ = tvmt_dot((const uint8_t *)row, 1, 0, columns, depth, IS_UNSIGNED);                                   \
      }                                                                                                               \
    } while (columns != end);                                                                                         \
  }
TVMT_DOTS_TWINS(s8, 0)
TVMT_DOTS_TWINS(u8, 1)
#undef TVMT_DOTS_TWINS

#endif
#endif
