/* Where the generated code and its constants go, and how micro-kernels are declared. Define any of these macros on
 * the compiler's command line to change it, for example
 *   -D'TVMT_CODE_SECTION=__attribute__((section(".itcm")))'
 */
#ifndef TVMT_PLATFORM_H
#define TVMT_PLATFORM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "tvmt_knobs.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tvmtiny's micro-kernels need a little-endian core"
#endif

/* Attribute of the functions that run during an inference (fast code memory such as ITCM). */
#ifndef TVMT_CODE_SECTION
#define TVMT_CODE_SECTION
#endif

/* An operator stays a function of its own, so that a profiler can tell it from others. It calls loops of thousands of
 * instructions: inlining it would gain nothing. */
#ifndef TVMT_OPERATOR
#if defined(__GNUC__) && !defined(__clang__)
#define TVMT_OPERATOR __attribute__((noipa))
#elif defined(__clang__)
#define TVMT_OPERATOR __attribute__((noinline))
#else
#define TVMT_OPERATOR
#endif
#endif

/* Attribute of the constant tables: weights, biases, multipliers. */
#ifndef TVMT_WEIGHTS_SECTION
#define TVMT_WEIGHTS_SECTION
#endif

/* Of constants of any type: micro-kernels load words of them. */
#define TVMT_WORD_ALIGNED __attribute__((aligned(4)))

/* Helpers of a few instructions: a call would cost more than they do, also at -Os. */
#define TVMT_INLINE static inline __attribute__((always_inline))

/* Linkage of a micro-kernel: one copy in the one C file that includes it, or one in each operator. */
#ifndef TVMT_FUNCTION
#if TVMT_INLINED
#define TVMT_FUNCTION TVMT_INLINE
#else
#define TVMT_FUNCTION static __attribute__((unused)) /* a header may hold more than a model uses */
#endif
#endif

/* Of what micro-kernels have in common: one copy for all of them, or one in each. */
#if TVMT_INLINED
#define TVMT_SHARED TVMT_FUNCTION
#else
#define TVMT_SHARED TVMT_FUNCTION __attribute__((noinline))
#endif

/* Of a loop that needs all registers: inside a micro-kernel it would lose some to what surrounds it. */
#define TVMT_LOOP static __attribute__((unused, noinline))

#endif
