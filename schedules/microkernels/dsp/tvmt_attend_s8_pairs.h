/* Attention of one head from its scores: softmax, times pairs of channels, in the memory of the scores. */
#ifndef TVMT_ATTEND_S8_PAIRS_H
#define TVMT_ATTEND_S8_PAIRS_H

#include "tvmt_softmax_u8.h"
#include "tvmt_values_s8_pairs.h"

/* out[i * out_stride + j] = tvmt_values_s8_pairs of the exponentials that tvmt_softmax_u8 makes of scores.
 *
 * scores: rows of `depth` int32, lost: the exponentials of up to four rows lie where the first of these scores were,
 * and their workspace behind. scores_stride: a multiple of four, at least depth. The rest is as in the two. Strides in
 * elements. out must not overlap scores or v.
 */
TVMT_FUNCTION TVMT_CODE_SECTION void tvmt_attend_s8_pairs(int32_t *scores, const uint8_t *table, const int8_t *v,
                                                          int8_t *out, int32_t rows, int32_t cols, int32_t depth,
                                                          int32_t scores_stride, int32_t v_stride, int32_t out_stride,
                                                          int32_t score_multiplier, int32_t score_shift,
                                                          uint32_t ratio, int32_t shift, int32_t zero_point) {
  while (rows > 0) {
    const int32_t taken = rows > TVMT_PAIR_ROWS ? TVMT_PAIR_ROWS : rows;
    uint8_t *p = (uint8_t *)scores;
    int16_t *workspace = (int16_t *)(void *)(scores + ((taken * scores_stride) >> 2));
    int32_t row_sum[TVMT_PAIR_ROWS];
    tvmt_softmax_u8(scores, table, p, row_sum, taken, depth, scores_stride, scores_stride, score_multiplier,
                    score_shift);
    tvmt_values_s8_pairs(p, v, row_sum, out, workspace, taken, cols, depth, scores_stride, v_stride, out_stride, ratio,
                         shift, zero_point);
    scores += taken * scores_stride;
    out += taken * out_stride;
    rows -= taken;
  }
}

#endif
