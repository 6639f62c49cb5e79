/* What the loops over vectors of four words have in common. They are written in assembly because GCC 12 does not make
 * loops of tail predication (DLSTP, LETP) and moves the predicate through a core register for each vector. */
#ifndef TVMT_VECTORS_H
#define TVMT_VECTORS_H

#include "tvmt_arith.h"

#if TVMT_MVE
/* Clamps words to int8; a byte store then takes the lowest byte of each. */
#define TVMT_CLAMP_S8(Q) "vqmovnb.s32 " Q ", " Q "\n\t" "vqmovnb.s16 " Q ", " Q "\n\t"
#endif

#endif
