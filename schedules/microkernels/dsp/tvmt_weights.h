/* How the weights of dense layers are stored in pairs of columns: as int8, which a product widens.
 *
 * Element k of column j is weight[(j >> 1) * w_stride + 2 * k + (j & 1)].
 */
#ifndef TVMT_WEIGHTS_H
#define TVMT_WEIGHTS_H

#include <stdint.h>

typedef int8_t tvmt_weight;

#define TVMT_WIDE_WEIGHTS 0

#endif
