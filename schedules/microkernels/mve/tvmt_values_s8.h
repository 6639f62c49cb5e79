/* Attention values of one head: unnormalised uint8 probabilities times int8 values, divided by the row's sum. */
#ifndef TVMT_VALUES_S8_H
#define TVMT_VALUES_S8_H

#include "tvmt_finish.h"

/* out[i * out_stride + j] = clamp8(multiply_high(acc << shift, ratio / row_sum[i]) + zero_point),
 * acc = sum_k p[i * p_stride + k] * v_transposed[j * v_stride + k].
 *
 * p: rows of `depth` uint8. v_transposed: cols >= 1 of `depth` valid int8. row_sum: [rows], sum_k p[i * p_stride + k],
 * at least 255 each, from tvmt_softmax_u8. ratio: scale_v / scale_out * 2**(32 - shift). acc << shift must fit 32 bits.
 * workspace: min(rows, 2) * ceil(depth / 4) * 4 int16. Strides in elements. out must not overlap p or v_transposed.
 *
 * Values are multiplied as v + 128, unsigned like p: what that adds to a sum is 128 times the row's sum, which is known.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_values_s8(const uint8_t *p, const int8_t *v_transposed,
                                                    const int32_t *row_sum, int8_t *out, int16_t *workspace,
                                                    int32_t rows, int32_t cols, int32_t depth, int32_t p_stride,
                                                    int32_t v_stride, int32_t out_stride, uint32_t ratio,
                                                    int32_t shift, int32_t zero_point) {
  const tvmt_rounding rounding = {shift, zero_point};
  int32_t acc[2][TVMT_CHUNK_COLUMNS];
  for (int32_t i = 0, taken; i < rows; i += taken) {
    taken = tvmt_rows_taken(rows - i, depth);
    const void *prepared = tvmt_prepare_rows(workspace, p + i * p_stride, taken, depth, p_stride);
    tvmt_chunk chunk;
    for (int32_t done = 0; done < cols; done = chunk.first + chunk.count) {
      chunk = tvmt_next_chunk(done, cols, v_stride, TVMT_CHUNK_COLUMNS);
      tvmt_multiply(acc[0], acc[1], prepared, taken, v_transposed, depth, chunk, v_stride, TVMT_ROWS_U8);
      for (int32_t r = 0; r < taken; r++) {
        tvmt_finish_row_s8(acc[r], -128 * row_sum[i + r], (int32_t)(ratio / (uint32_t)row_sum[i + r]),
                           out + (i + r) * out_stride + chunk.first, chunk.count, rounding);
      }
    }
  }
}

#endif
