/* How the weights of dense layers are stored in pairs of columns: as int16, widened already: twice the flash, fewer
 * instructions.
 *
 * Element k of column j is weight[(j >> 1) * w_stride + 2 * (k & ~1) + 2 * (j & 1) + (k & 1)].
 */
#ifndef TVMT_WEIGHTS_H
#define TVMT_WEIGHTS_H

#include <stdint.h>

typedef int16_t tvmt_weight;

#define TVMT_WIDE_WEIGHTS 1

#endif
