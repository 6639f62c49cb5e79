/* Runs micro-kernels on cases that lie in an arena: the same C on the host and, as a model, under the harness of
 * microtvm_projects/. cases.py writes the cases and knows what they must give.
 *
 * Arena: 32-bit words, little endian. First word: how many cases follow, from byte 16 on. A case:
 *   kernel (its number in the list below), words of the whole case, how many buffers, how many arguments;
 *   a pair (offset, bytes) for each buffer; the arguments; then the buffers' contents.
 * Offsets are bytes from the start of the case. An argument that is a pointer holds such an offset.
 */
#include "tvmt_model.h"

#include "tvmt_knobs.h"

#if !TVMT_INLINED
/* A call each, as in a model: inlined into one function they would compete for registers. */
#define TVMT_FUNCTION static __attribute__((noinline))
#endif

#include "tvmt_add_residual_s16_s32.h"
#include "tvmt_add_residual_s32.h"
#include "tvmt_attend_s8.h"
#include "tvmt_dense_s32.h"
#include "tvmt_dense_s8.h"
#include "tvmt_dense_table_s8.h"
#include "tvmt_depthwise_s8.h"
#include "tvmt_add_embedding_s32.h"
#include "tvmt_dense_w4_s32.h"
#include "tvmt_dense_w4_s8.h"
#include "tvmt_embed_s32.h"
#include "tvmt_embed_scaled_s32.h"
#include "tvmt_gate_s8.h"
#include "tvmt_huffman_rows_s8.h"
#include "tvmt_huffman_s8.h"
#include "tvmt_layer_norm_s8.h"
#include "tvmt_norm_rate.h"
#include "tvmt_lookup_s8.h"
#include "tvmt_mean_s16_s32.h"
#include "tvmt_mean_s8.h"
#include "tvmt_quantize_q16_s8.h"
#include "tvmt_product_s8.h"
#include "tvmt_requantize_s32_s16.h"
#include "tvmt_requantize_s32_s8.h"
#include "tvmt_rms_norm_s8.h"
#include "tvmt_rotary_s8.h"
#include "tvmt_scale_s8.h"
#include "tvmt_scores_s32.h"
#include "tvmt_softmax_u8.h"
#include "tvmt_unpack_rows_s8.h"
#include "tvmt_unpack_s8.h"
#include "tvmt_values_s8.h"

/* Forms of the matrix products that the portable family has not. */
#if __has_include("tvmt_pairs.h")
#define PAIRS 1
#include "tvmt_attend_s8_pairs.h"
#include "tvmt_dense_s32_pairs.h"
#include "tvmt_dense_s8_channels.h"
#include "tvmt_dense_s8_keys.h"
#include "tvmt_dense_s8_pairs.h"
#include "tvmt_dense_table_s8_pairs.h"
#include "tvmt_scores_s32_pairs.h"
#include "tvmt_values_s8_pairs.h"
#else
#define PAIRS 0
#endif

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#endif

#define CASES_BYTES 32768

enum { KERNEL, WORDS, BUFFERS, ARGUMENTS, HEADER_WORDS };

static const tvmt_tensor tensors[] = {{"cases", 0, CASES_BYTES}};

/* The primitives alone, for values that kernels seldom reach. */
static void arith(const int32_t *a, const int32_t *b, int32_t *out, int32_t count) {
  for (int32_t i = 0; i < count; i++) {
    *out++ = tvmt_multiply_high(a[i], b[i]);
    *out++ = tvmt_multiply_high_add(b[i] >> 2, a[i], b[i]);
    *out++ = tvmt_saturate_s8(a[i]);
    *out++ = tvmt_saturate_s16(a[i]);
    *out++ = tvmt_saturate_u8(a[i]);
  }
}

static void reciprocal_sqrt(const uint32_t *value, int32_t *out, int32_t count) {
  for (int32_t i = 0; i < count; i++) {
    out[0] = (int32_t)tvmt_reciprocal_sqrt((uint64_t)value[0] | (uint64_t)value[1] << 32, &out[1]);
    out += 2;
    value += 2;
  }
}

/* What a kernel leaves in its workspace is its own affair. */
static void clear(void *workspace, int32_t bytes) { memset(workspace, 0, (size_t)bytes); }

static int dispatch(int32_t kernel, char *base, const int32_t *a) {
#define S8(i) ((int8_t *)(void *)(base + a[i]))
#define U8(i) ((uint8_t *)(void *)(base + a[i]))
#define S16(i) ((int16_t *)(void *)(base + a[i]))
#define U16(i) ((uint16_t *)(void *)(base + a[i]))
#define WEIGHT(i) ((tvmt_weight *)(void *)(base + a[i]))
#define S32(i) ((int32_t *)(void *)(base + a[i]))
  switch (kernel) {
    case 0:
      tvmt_dense_s8(S8(0), S8(1), S32(2), S32(3), S8(4), S16(5), a[6], a[7], a[8], a[9], a[10], a[11], a[12],
                    a[13]);
      clear(S16(5), a[14]);
      return 0;
    case 1:
      tvmt_dense_s32(S8(0), S8(1), S32(2), S32(3), S32(4), S16(5), a[6], a[7], a[8], a[9], a[10], a[11]);
      clear(S16(5), a[12]);
      return 0;
    case 2:
      tvmt_lookup_s8(S8(0), S8(1), a[2], a[3], a[4]);
      return 0;
    case 3:
      tvmt_add_residual_s32(S32(0), S8(1), a[2], a[3], a[4], a[5], a[6], a[7], a[8]);
      return 0;
    case 4:
      tvmt_requantize_s32_s8(S32(0), S8(1), a[2], a[3], a[4], a[5], a[6], a[7], a[8]);
      return 0;
    case 5:
      tvmt_requantize_s32_s16(S32(0), S16(1), a[2], a[3], a[4], a[5], a[6], a[7], a[8]);
      return 0;
    case 6:
      tvmt_layer_norm_s8(S32(0), S32(1), S32(2), S8(3), a[4], a[5], a[6], a[7], (uint32_t)a[8],
                         (int64_t)((uint64_t)(uint32_t)a[9] | (uint64_t)(uint32_t)a[10] << 32));
      return 0;
    case 7:
      tvmt_scores_s32(S8(0), S8(1), S32(2), S16(3), a[4], a[5], a[6], a[7], a[8], a[9]);
      clear(S16(3), a[10]);
      return 0;
    case 8:
      tvmt_softmax_u8(S32(0), U8(1), U8(2), S32(3), a[4], a[5], a[6], a[7], a[8], a[9]);
      return 0;
    case 9:
      tvmt_values_s8(U8(0), S8(1), S32(2), S8(3), S16(4), a[5], a[6], a[7], a[8], a[9], a[10],
                     (uint32_t)a[11], a[12], a[13]);
      clear(S16(4), a[14]);
      return 0;
    case 10:
      tvmt_embed_s32((const uint16_t *)(const void *)S16(0), S8(1), S8(2), S32(3), a[4], a[5], a[6], a[7], a[8],
                     a[9]);
      return 0;
    case 11:
      tvmt_mean_s8(S8(0), S8(1), a[2], a[3], a[4], a[5], (uint32_t)a[6], a[7], a[8]);
      return 0;
    case 12:
      tvmt_quantize_q16_s8(S32(0), S32(1), S32(2), S8(3), a[4], a[5], a[6]);
      return 0;
    case 13:
      arith(S32(0), S32(1), S32(2), a[3]);
      return 0;
    case 14:
      reciprocal_sqrt((const uint32_t *)S32(0), S32(1), a[2]);
      return 0;
    case 15:
      tvmt_product_s8(S8(0), S8(1), S8(2), S16(3), a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12]);
      clear(S16(3), a[13]);
      return 0;
#if PAIRS
    case 16:
      tvmt_dense_s8_pairs(S8(0), WEIGHT(1), S32(2), S32(3), S8(4), S16(5), a[6], a[7], a[8], a[9], a[10], a[11], a[12],
                          a[13]);
      clear(S16(5), a[14]);
      return 0;
    case 17:
      tvmt_dense_table_s8_pairs(S8(0), WEIGHT(1), S32(2), S32(3), S8(15), S8(4), S16(5), a[6], a[7], a[8], a[9], a[10],
                                a[11], a[12], a[13]);
      clear(S16(5), a[14]);
      return 0;
    case 18:
      tvmt_dense_s32_pairs(S8(0), WEIGHT(1), S32(2), S32(3), S32(4), S16(5), a[6], a[7], a[8], a[9], a[10], a[11], a[12]);
      clear(S16(5), a[13]);
      return 0;
    case 19:
      tvmt_dense_s8_keys(S8(0), WEIGHT(1), S32(2), S32(3), S8(4), S16(5), a[6], a[7], a[8], a[9], a[10], a[11], a[12],
                         a[13]);
      clear(S16(5), a[14]);
      return 0;
    case 20:
      tvmt_dense_s8_channels(S8(0), WEIGHT(1), S32(2), S32(3), S8(4), S16(5), a[6], a[7], a[8], a[9], a[10], a[11], a[12],
                             a[13]);
      clear(S16(5), a[14]);
      return 0;
    case 21:
      tvmt_scores_s32_pairs(S8(0), S8(1), S32(2), S16(3), a[4], a[5], a[6], a[7], a[8], a[9]);
      clear(S16(3), a[10]);
      return 0;
    case 22:
      tvmt_values_s8_pairs(U8(0), S8(1), S32(2), S8(3), S16(4), a[5], a[6], a[7], a[8], a[9], a[10],
                           (uint32_t)a[11], a[12], a[13]);
      clear(S16(4), a[14]);
      return 0;
    case 24:
      tvmt_attend_s8_pairs(S32(0), U8(1), S8(2), S8(3), a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11],
                           (uint32_t)a[12], a[13], a[14]);
      clear(S32(0), a[15]);
      return 0;
#endif
    case 23:
      tvmt_attend_s8(S32(0), U8(1), S8(2), S8(3), a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], (uint32_t)a[12],
                     a[13], a[14]);
      clear(S32(0), a[15]);
      return 0;
    case 25:
      tvmt_dense_table_s8(S8(0), S8(1), S32(2), S32(3), S8(4), S8(5), S16(6), a[7], a[8], a[9], a[10], a[11], a[12],
                          a[13]);
      clear(S16(6), a[14]);
      return 0;
    case 26:
      tvmt_add_residual_s16_s32(S32(0), S16(1), a[2], a[3], a[4], a[5], a[6], a[7]);
      return 0;
    case 27:
      tvmt_mean_s16_s32(S16(0), S32(1), a[2], a[3], a[4], (uint32_t)a[5], a[6]);
      return 0;
    case 28:
      tvmt_dense_w4_s8(S8(0), U8(1), U8(2), S32(3), S32(4), S8(5), S16(6), a[7], a[8], a[9], a[10], a[11], a[12],
                       a[13], a[14]);
      clear(S16(6), a[15]);
      return 0;
    case 29:
      tvmt_dense_w4_s32(S8(0), U8(1), U8(2), S32(3), S32(4), S32(5), S16(6), a[7], a[8], a[9], a[10], a[11],
                        a[12]);
      clear(S16(6), a[13]);
      return 0;
    case 30:
      tvmt_add_embedding_s32(S32(0), (const uint16_t *)(const void *)S16(1), S8(2), a[3], a[4], a[5], a[6]);
      return 0;
    case 31:
      tvmt_scale_s8(S32(0), S32(1), S32(2), S8(3), a[4], a[5], a[6], a[7], a[8]);
      return 0;
    case 32:
      tvmt_rms_norm_s8(S32(0), S32(1), S32(2), S8(3), a[4], a[5], a[6], a[7], (uint32_t)a[8],
                       (int64_t)((uint64_t)(uint32_t)a[9] | (uint64_t)(uint32_t)a[10] << 32));
      return 0;
    case 33:
      tvmt_depthwise_s8(S8(0), S8(1), S32(2), S32(3), S8(4), a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13],
                        a[14]);
      return 0;
    case 34:
      tvmt_rotary_s8(S32(0), S16(1), S8(2), a[3], a[4], a[5], a[6]);
      return 0;
    case 35:
      tvmt_gate_s8(S8(0), S8(1), S16(2), a[3], a[4], a[5], a[6], a[7], a[8], a[9]);
      return 0;
    case 36:
      tvmt_embed_scaled_s32((const uint16_t *)(const void *)S16(0), S8(1), (const uint16_t *)(const void *)S16(2),
                            S32(3), a[4], a[5], a[6]);
      return 0;
    case 37:
      tvmt_unpack_s8(U8(0), S8(1), S8(2), a[3], a[4]);
      return 0;
    case 38:
      tvmt_unpack_rows_s8(U16(0), U8(1), S8(2), S8(3), a[4], a[5], a[6], a[7]);
      return 0;
    case 39:
      tvmt_huffman_s8(U8(0), U8(1), U8(2), S8(3), U16(4), a[5], a[6], a[7]);
      clear(U16(4), a[8]);
      return 0;
    case 40:
      tvmt_huffman_rows_s8(U16(0), (const uint32_t *)(const void *)S32(1), U8(2), U8(3), U8(4), S8(5), U16(6), a[7],
                           a[8], a[9], a[10]);
      clear(U16(6), a[11]);
      return 0;
    default:
      return -1;
  }
}

/* Under AddressSanitizer only the case's buffers may be touched. */
static int run_case(int32_t *words) {
  char *base = (char *)words;
  int32_t arguments[16] = {0};
  const int32_t *buffer = words + HEADER_WORDS, kernel = words[KERNEL], count = words[BUFFERS];
  int32_t regions[16];
  const int32_t bytes = words[WORDS] * 4;
  for (int32_t i = 0; i < 2 * count; i++) {
    regions[i] = buffer[i];
  }
  for (int32_t i = 0; i < words[ARGUMENTS]; i++) {
    arguments[i] = buffer[2 * count + i];
  }
  ASAN_POISON_MEMORY_REGION(base, (size_t)bytes);
  for (int32_t i = 0; i < count; i++) {
    ASAN_UNPOISON_MEMORY_REGION(base + regions[2 * i], (size_t)regions[2 * i + 1]);
  }
  const int status = dispatch(kernel, base, arguments);
  ASAN_UNPOISON_MEMORY_REGION(base, (size_t)bytes);
  return status;
}

int microkernels_run(void *arena, size_t arena_bytes, int32_t n_tokens);
int microkernels_run(void *arena, size_t arena_bytes, int32_t n_tokens) {
  (void)arena_bytes;
  (void)n_tokens;
  int32_t *word = (int32_t *)arena + 4;
  int32_t cases = *(const int32_t *)arena;
  int status = 0;
  for (; cases > 0 && status == 0; cases--) {
    int32_t *next = word + word[WORDS];
    status = run_case(word);
    word = next;
  }
  return status;
}

extern const tvmt_model microkernels_model;
const tvmt_model microkernels_model = {
    "microkernels", CASES_BYTES, 16, 1, 1, tensors, 1, tensors, microkernels_run, NULL, NULL,
};
