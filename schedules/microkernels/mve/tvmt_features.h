/* Which instructions this family of micro-kernels uses: the vector extension of Armv8.1-M (MVE, Helium) for integers,
 * and the DSP extension, where the compiler has them. Without them (on the host) each operation's portable twin gives
 * the same bits.
 */
#ifndef TVMT_FEATURES_H
#define TVMT_FEATURES_H

#if defined(__ARM_FEATURE_MVE)
#define TVMT_MVE 1
#include <arm_mve.h>
#else
#define TVMT_MVE 0
#endif

#if defined(__ARM_FEATURE_DSP)
#define TVMT_DSP 1
#else
#define TVMT_DSP 0
#endif

#endif
