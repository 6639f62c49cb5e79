/* Functions written whole in assembly: a loop that needs all fourteen registers, more than a compiler grants an inline
 * statement when it keeps a frame pointer. The compiler must not reason about their arguments and registers.
 */
#ifndef TVMT_ASSEMBLY_H
#define TVMT_ASSEMBLY_H

#include "tvmt_platform.h"

/* TVMT_IN_ASSEMBLY names the parameters that the assembly takes from registers and stack: GCC warns of those that are
 * not mentioned, clang allows nothing but assembly in such a function. */
#if defined(__clang__)
#define TVMT_ASSEMBLY static __attribute__((unused, naked, noinline))
#define TVMT_IN_ASSEMBLY(...)
#else
#define TVMT_ASSEMBLY static __attribute__((unused, naked, noinline, noipa))
#define TVMT_IN_ASSEMBLY(...) __VA_ARGS__;
#endif

#endif
