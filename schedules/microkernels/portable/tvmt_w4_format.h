/* How int4 weights lie in flash.
 *
 * A column (an output channel) is packed two weights a byte, the even one in the low bits, as q + 8; it ends at a whole
 * word of eight weights. TVMT_W4_GROUP weights share a scale g from 1 to 255, a byte: the weight is g * q.
 */
#ifndef TVMT_W4_FORMAT_H
#define TVMT_W4_FORMAT_H

#include "tvmt_platform.h"

/* Weights that share a scale; the last group of a column may be shorter. */
enum { TVMT_W4_GROUP = 32 };

/* Bytes of a packed column. */
TVMT_INLINE int32_t tvmt_w4_bytes(int32_t depth) { return ((depth + 7) >> 3) * 4; }

/* Rows of the largest strip that a column meets at a time. */
enum { TVMT_W4_ROWS = 4 };

/* Row `i` of a strip of `count` rows; where it has two or three, the last stands for those that are missing of four. */
TVMT_INLINE int32_t tvmt_w4_row(int32_t i, int32_t count) { return i < count ? i : count - 1; }

/* Scales of a column. */
TVMT_INLINE int32_t tvmt_w4_groups(int32_t depth) { return (depth + (TVMT_W4_GROUP - 1)) / TVMT_W4_GROUP; }

#endif
