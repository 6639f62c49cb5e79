/* Which instructions this family of micro-kernels uses: the DSP extension of ARMv7E-M and ARMv8-M, where the compiler
 * has it. Without it (on the host) each operation's portable twin gives the same bits.
 */
#ifndef TVMT_FEATURES_H
#define TVMT_FEATURES_H

#if defined(__ARM_FEATURE_DSP)
#define TVMT_DSP 1
#else
#define TVMT_DSP 0
#endif

#endif
