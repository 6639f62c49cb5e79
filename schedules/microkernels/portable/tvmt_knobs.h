/* What a tuner may choose of these micro-kernels: instructions and code size change, bytes never do. Defined here as the
 * rules choose it, by the variant of a tuned model, or on the compiler's command line.
 */
#ifndef TVMT_KNOBS_H
#define TVMT_KNOBS_H

/* Whether each operator has micro-kernels of its own, made for the constants that it calls them with, or all operators
 * share them. Loops in assembly, and those that need all registers, are shared in either case. */
#ifndef TVMT_INLINED
#define TVMT_INLINED 0
#endif

/* Steps of two elements in a turn of the loop over pairs of columns: 8, 16, 32 or 48. */
#ifndef TVMT_PAIR_STEPS
#define TVMT_PAIR_STEPS 16
#endif

/* Whether the loop over pairs of int16 columns loads single words only, not two at once in every other step: more
 * instructions, but on a Cortex-M4 half a cycle less a step. */
#ifndef TVMT_PAIR_SINGLE_LOADS
#define TVMT_PAIR_SINGLE_LOADS 0
#endif

/* Steps of four elements in a turn of the loop over plain columns: 4, 8, 16 or 32. */
#ifndef TVMT_STRIP_STEPS
#define TVMT_STRIP_STEPS 8
#endif

/* Whether the last operations on the accumulators of a plain column go stage by stage, for all rows of a strip at once:
 * none waits for the one before. Code for five and six rows of its own. */
#ifndef TVMT_STRIP_STAGED
#define TVMT_STRIP_STAGED 0
#endif

#endif
