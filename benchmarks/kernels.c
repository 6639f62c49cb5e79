/* One micro-kernel a run: bench_kernels.py counts its instructions.
 *
 * First words of the arena: kernel (its number below), rows, cols, depth, how often. Then, at X_OFFSET, its first
 * operand; the others are whatever lies there.
 */
#include "tvmt_model.h"

#define TVMT_FUNCTION static __attribute__((noinline))

#include "tvmt_add_residual_s32.h"
#include "tvmt_dense_s32.h"
#include "tvmt_dense_s8.h"
#include "tvmt_layer_norm_s8.h"
#include "tvmt_lookup_s8.h"
#include "tvmt_requantize_s32_s8.h"
#include "tvmt_scores_s32.h"
#include "tvmt_softmax_u8.h"
#include "tvmt_values_s8.h"

#define ARENA_BYTES 524288

enum { X_OFFSET = 32, OPERAND_BYTES = 65536 };

static const tvmt_tensor tensors[] = {{"call", 0, X_OFFSET + OPERAND_BYTES}};

int kernels_run(void *arena, size_t arena_bytes, int32_t n_tokens);
int kernels_run(void *arena, size_t arena_bytes, int32_t n_tokens) {
  const int32_t *call = (const int32_t *)arena;
  const int32_t rows = call[1], cols = call[2], depth = call[3];
  char *memory = (char *)arena + X_OFFSET;
  void *x = memory, *weight = memory + OPERAND_BYTES, *out = memory + 2 * OPERAND_BYTES;
  int32_t *bias = (int32_t *)(void *)(memory + 4 * OPERAND_BYTES), *multiplier = bias + 1024;
  int16_t *workspace = (int16_t *)(void *)(multiplier + 1024);
  int32_t *row_sum = (int32_t *)(void *)(memory + 6 * OPERAND_BYTES);
  (void)arena_bytes;
  (void)n_tokens;
  for (int32_t i = 0; i < call[4]; i++) {
    switch (call[0]) {
      case 0:
        tvmt_dense_s8(x, weight, bias, multiplier, out, workspace, rows, cols, depth, depth, cols, 1, 0, 0);
        break;
      case 1:
        tvmt_dense_s32(x, weight, bias, multiplier, out, workspace, rows, cols, depth, depth, cols, 0);
        break;
      case 2:
        tvmt_scores_s32(x, weight, out, workspace, rows, cols, depth, depth, depth, cols);
        break;
      case 3:
        tvmt_values_s8(x, weight, row_sum, out, workspace, rows, cols, depth, depth, depth, cols, 0x10000000U, 0, 0);
        break;
      case 4:
        tvmt_softmax_u8(x, weight, out, row_sum, rows, cols, cols, cols, 0x10000000, 0);
        break;
      case 5:
        tvmt_layer_norm_s8(x, bias, multiplier, out, rows, cols, cols, cols, 0x8000000U, 1);
        break;
      case 6:
        tvmt_add_residual_s32(x, weight, rows, cols, cols, cols, 0, 8, 19);
        break;
      case 7:
        tvmt_requantize_s32_s8(x, out, rows, cols, cols, cols, 0x10000000, 0, 0);
        break;
      case 8:
        tvmt_lookup_s8(x, weight, rows, cols, cols);
        break;
      default:
        return -1;
    }
  }
  return 0;
}

extern const tvmt_model kernels_model;
const tvmt_model kernels_model = {"kernels", ARENA_BYTES, 16, 1, 1, tensors, 1, tensors, kernels_run};
