/* What a compiled model says of itself: one constant descriptor, meant to stay in flash.
 *
 * C11 and C++. Everything is in bytes unless it says otherwise.
 */
#ifndef TVMT_MODEL_H
#define TVMT_MODEL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A tensor inside the arena. */
typedef struct {
  const char *name; /* as in the source model */
  uint32_t offset;  /* from the start of the arena */
  uint32_t bytes;
} tvmt_tensor;

typedef struct {
  const char *name;           /* the model's C prefix */
  uint32_t arena_bytes;       /* least size of the arena: inputs, outputs and scratch */
  uint32_t arena_align;       /* alignment of the arena's first byte, a power of two */
  int32_t max_tokens;         /* a run (or step) takes 1 to max_tokens tokens; exactly that many without a length */
  uint32_t n_inputs;          /* entries of inputs */
  const tvmt_tensor *inputs;  /* written by the caller before each run, which may overwrite them */
  uint32_t n_outputs;         /* entries of outputs */
  const tvmt_tensor *outputs; /* valid after a run that returned 0, until the next */
  int (*run)(void *arena, size_t arena_bytes, int32_t n_tokens); /* 0, or a negative error */
  int (*reset)(void *arena, size_t arena_bytes); /* begins a sequence, where a run is one step of it; else NULL */
  int (*init)(void *arena, size_t arena_bytes);  /* once, before anything else, where weights are decoded; else NULL */
} tvmt_model;

/* After each operator, in a firmware that was built for debugging over the link: a run may end there with
 * TVMT_STOPPED, so that the host can look into the arena (tvmt_link.h). Otherwise nothing. */
#define TVMT_STOPPED 1
#ifdef TVMT_LINK_DEBUG
extern uint32_t tvmt_stop_after;
#define TVMT_AFTER_OPERATOR(index) \
  do {                             \
    if (tvmt_stop_after == (index)) return TVMT_STOPPED; \
  } while (0)
#else
#define TVMT_AFTER_OPERATOR(index) ((void)0)
#endif

#ifdef __cplusplus
}
#endif

#endif
