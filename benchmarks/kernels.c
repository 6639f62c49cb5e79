/* One micro-kernel a run, as often as asked: `tvmtiny bench` counts the instructions of the calls.
 *
 * The arena begins with a `work` that says which kernel, with which sizes, and where in the arena its operands lie.
 * They are filled with numbers that spread like the sums of a layer. Weights are constants, as in a compiled model.
 *
 * To add a kernel: include its header, add its case to KERNELS, and benchmarks to benchmarks/kernels.toml.
 */
#include <string.h>

#include "tvmt_model.h"

/* A compiled model calls its micro-kernels with many different numbers: none may become a constant of the kernel. */
#define TVMT_FUNCTION static __attribute__((noipa))

#include "tvmt_add_residual_s16_s32.h"
#include "tvmt_add_residual_s32.h"
#include "tvmt_dense_s32.h"
#include "tvmt_dense_s8.h"
#include "tvmt_add_embedding_s32.h"
#include "tvmt_dense_w4_s8.h"
#include "tvmt_embed_s32.h"
#include "tvmt_layer_norm_s8.h"
#include "tvmt_lookup_s8.h"
#include "tvmt_mean_s16_s32.h"
#include "tvmt_mean_s8.h"
#include "tvmt_quantize_q16_s8.h"
#include "tvmt_requantize_s32_s16.h"
#include "tvmt_requantize_s32_s8.h"
#include "tvmt_rms_norm_s8.h"
#include "tvmt_scale_s8.h"
#include "tvmt_scores_s32.h"
#include "tvmt_softmax_u8.h"
#include "tvmt_values_s8.h"

/* Forms whose columns lie in pairs, in the families that have them. */
#if __has_include("tvmt_pairs.h")
#include "tvmt_dense_s32_pairs.h"
#include "tvmt_dense_s8_pairs.h"
#include "tvmt_scores_s32_pairs.h"
#include "tvmt_values_s8_pairs.h"
#define PAIRS(CASE)                                                                                                   \
  CASE(dense_s8_pairs, o->x, o->weight, o->column, o->column, o->out, o->workspace, o->rows, o->cols, o->depth,       \
       o->depth, 2 * o->depth, o->cols, 0, 0)                                                                         \
  CASE(dense_s32_pairs, o->x, o->weight, o->column, o->column, o->out, o->workspace, o->rows, o->cols, o->depth,      \
       o->depth, 2 * o->depth, o->cols, 0)                                                                            \
  CASE(scores_s32_pairs, o->x, o->y, o->out, o->workspace, o->rows, o->cols, o->depth, o->depth, 2 * o->depth,        \
       o->cols)                                                                                                       \
  CASE(values_s8_pairs, o->x, o->y, o->row_sum, o->out, o->workspace, o->rows, o->cols, o->depth, o->depth,           \
       2 * o->depth, o->cols, 0x10000000U, 0, 0)
enum { WEIGHT_ITEM = sizeof(tvmt_weight), WEIGHT_PAIRS = 1 };
#else
#define PAIRS(CASE)
enum { WEIGHT_ITEM = 1, WEIGHT_PAIRS = 0 };
#endif

enum { WEIGHT_BYTES = 131072, ROW_SUM = 32768 };

/* Written by tvmtiny/bench/kernels.py. Offsets are bytes from the start of the arena. */
typedef struct {
  char kernel[32];
  int32_t rows, cols, depth;
  int32_t calls;
  uint32_t x, x_words;     /* first operand */
  uint32_t y, y_words;     /* second operand in RAM: keys, values, residual */
  uint32_t out;
  uint32_t workspace;
  uint32_t row_sum;        /* rows words */
} work;

typedef struct {
  int32_t rows, cols, depth;
  void *x, *y, *out;
  int16_t *workspace;
  int32_t *row_sum;
  const void *weight;
  const int32_t *column; /* a number a column: bias, multiplier, gamma, beta */
} operands;

/* CASE(kernel, arguments of tvmt_<kernel>), where `o` is the operands. */
#define KERNELS(CASE)                                                                                                 \
  PAIRS(CASE)                                                                                                         \
  CASE(dense_s8, o->x, o->weight, o->column, o->column, o->out, o->workspace, o->rows, o->cols, o->depth, o->depth,   \
       o->cols, 1, 0, 0)                                                                                              \
  CASE(dense_s32, o->x, o->weight, o->column, o->column, o->out, o->workspace, o->rows, o->cols, o->depth, o->depth,  \
       o->cols, 0)                                                                                                    \
  CASE(dense_w4_s8, o->x, o->weight, o->weight, o->column, o->column, o->out, o->workspace, o->rows, o->cols,         \
       o->depth, o->depth, o->cols, 1, 0, 0)                                                                          \
  CASE(scores_s32, o->x, o->y, o->out, o->workspace, o->rows, o->cols, o->depth, o->depth, o->depth, o->cols)         \
  CASE(values_s8, o->x, o->y, o->row_sum, o->out, o->workspace, o->rows, o->cols, o->depth, o->depth, o->depth,       \
       o->cols, 0x10000000U, 0, 0)                                                                                    \
  CASE(softmax_u8, o->x, o->weight, o->out, o->row_sum, o->rows, o->cols, o->cols, o->cols, 0x10000000, 0)            \
  CASE(layer_norm_s8, o->x, o->column, o->column, o->out, o->rows, o->cols, o->cols, o->cols, 0x8000000U, 1)          \
  CASE(add_residual_s32, o->x, o->y, o->rows, o->cols, o->cols, o->cols, 0, 8, 19)                                    \
  CASE(add_residual_s16_s32, o->x, o->y, o->rows, o->cols, o->cols, o->cols, 4, 24)                                   \
  CASE(requantize_s32_s8, o->x, o->out, o->rows, o->cols, o->cols, o->cols, 0x10000000, 0, 0)                         \
  CASE(requantize_s32_s16, o->x, o->out, o->rows, o->cols, o->cols, o->cols, 0x10000000, 0, 0)                        \
  CASE(quantize_q16_s8, o->x, o->column, o->column, o->out, o->rows, o->cols, 8)                                      \
  CASE(lookup_s8, o->x, o->weight, o->rows, o->cols, o->cols)                                                         \
  CASE(embed_s32, o->weight, o->weight, o->weight, o->out, o->rows, o->cols, 0, o->cols, 256, 256)                    \
  CASE(add_embedding_s32, o->x, o->weight, o->weight, o->rows, o->cols, o->cols, 256)                                 \
  CASE(scale_s8, o->x, o->column, o->column, o->out, o->rows, o->cols, o->cols, o->cols, 0)                           \
  CASE(rms_norm_s8, o->x, o->column, o->column, o->out, o->rows, o->cols, o->cols, o->cols, 0x8000000U, 1)            \
  CASE(mean_s8, o->x, o->out, o->rows, o->cols, o->cols, 0, 0x10000000U, 0, 0)                                        \
  CASE(mean_s16_s32, o->x, o->out, o->rows, o->cols, o->cols, 0x40000000U, 2)

#define FUNCTION(kernel, ...) \
  static void call_##kernel(const operands *o) { tvmt_##kernel(__VA_ARGS__); }
KERNELS(FUNCTION)

#define ENTRY(kernel, ...) {#kernel, call_##kernel},
static const struct {
  const char *kernel;
  void (*call)(const operands *o);
} cases[] = {KERNELS(ENTRY)};

TVMT_WEIGHTS_SECTION static const int32_t weights[WEIGHT_BYTES / 4] = {0};

/* Words of about normal distribution, mean 0, standard deviation 1024. */
static void fill(int32_t *to, uint32_t words) {
  uint32_t state = 2026;
  for (uint32_t i = 0; i < words; i++) {
    int32_t sum = 0;
    for (int32_t term = 0; term < 3; term++) {
      state = state * 1664525U + 1013904223U;
      sum += (int32_t)(state >> 21) - 1024;
    }
    to[i] = sum;
  }
}

int kernels_run(void *arena, size_t arena_bytes, int32_t n_tokens);
int kernels_run(void *arena, size_t arena_bytes, int32_t n_tokens) {
  const work *w = (const work *)arena;
  char *memory = (char *)arena;
  operands o = {.rows = w->rows,
                .cols = w->cols,
                .depth = w->depth,
                .x = memory + w->x,
                .y = memory + w->y,
                .out = memory + w->out,
                .workspace = (int16_t *)(void *)(memory + w->workspace),
                .row_sum = (int32_t *)(void *)(memory + w->row_sum),
                .weight = weights,
                .column = weights};
  (void)arena_bytes;
  (void)n_tokens;
  if (w->cols * w->depth * WEIGHT_ITEM > WEIGHT_BYTES || (WEIGHT_PAIRS && w->depth % 4 != 0)) {
    return -1;
  }
  fill((int32_t *)o.x, w->x_words);
  fill((int32_t *)o.y, w->y_words);
  for (int32_t i = 0; i < w->rows; i++) {
    o.row_sum[i] = ROW_SUM;
  }
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    if (strncmp(cases[i].kernel, w->kernel, sizeof w->kernel) == 0) {
      for (int32_t call = 0; call < w->calls; call++) {
        cases[i].call(&o);
      }
      return 0;
    }
  }
  return -2;
}

static const tvmt_tensor tensors[] = {{"work", 0, sizeof(work)}};

extern const tvmt_model kernels_model;
const tvmt_model kernels_model = {"kernels", sizeof(work), 16, 1, 1, tensors, 1, tensors, kernels_run, NULL, NULL};
