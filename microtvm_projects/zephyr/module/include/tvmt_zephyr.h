/* Compiled models in a Zephyr application: a registry of them, and arenas that one thread at a time holds.
 *
 *   void *arena = tvmt_acquire(&intent_instance, K_FOREVER);
 *   write the inputs, tvmt_run(&intent_instance, n_tokens), read the outputs
 *   tvmt_release(&intent_instance);
 *
 * C and C++.
 */
#ifndef TVMT_ZEPHYR_H
#define TVMT_ZEPHYR_H

#include <zephyr/devicetree.h>
#include <zephyr/kernel.h>
#include <zephyr/linker/devicetree_regions.h>
#include <zephyr/linker/section_tags.h>
#include <zephyr/sys/iterable_sections.h>

#include "tvmt_model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Attribute of an arena, also of one that the application brings: CONFIG_TVMT_ARENA_*. It is not initialized. */
#if defined(CONFIG_TVMT_ARENA_REGION)
#define TVMT_ARENA_MEMORY Z_GENERIC_SECTION(LINKER_DT_NODE_REGION_NAME(DT_CHOSEN(tvmtiny_arena)))
#elif defined(CONFIG_TVMT_ARENA_DTCM)
#define TVMT_ARENA_MEMORY __dtcm_noinit_section
#else
#define TVMT_ARENA_MEMORY __noinit
#endif

/* A model of this image and its arena. Constant, in an iterable section: STRUCT_SECTION_FOREACH(tvmt_instance, it). */
struct tvmt_instance {
  const tvmt_model *model;
  void *arena;          /* NULL: the application brings its own and calls the model's functions with it */
  size_t arena_bytes;   /* at least those that the model needs; 0 without an arena */
  struct k_mutex *lock; /* of the arena, which models may share; NULL without an arena */
  const struct tvmt_instance **owner; /* who had the arena last; changed under the lock. NULL without an arena */
};

/* The instance of the model called `name` (its C prefix), or NULL. */
const struct tvmt_instance *tvmt_find(const char *name);

/* Take the arena, for as long as inputs, the run and the outputs need it; models that share it wait meanwhile.
 * Weights that are decoded at boot are decoded here, the first time and whenever another model had the arena last.
 * Returns NULL when `timeout` ends first, when decoding fails, and for an instance without an arena: the arena is not
 * held then. Not for interrupts. */
void *tvmt_acquire(const struct tvmt_instance *instance, k_timeout_t timeout);

/* Give the arena back; its contents may change from here on. */
void tvmt_release(const struct tvmt_instance *instance);

/* Run the model on the inputs in its arena, which the calling thread holds.
 * Returns 0 or the model's negative error, which is logged too; -ENOMEM for an instance without an arena. */
int tvmt_run(const struct tvmt_instance *instance, int32_t n_tokens);

#if defined(CONFIG_TVMT_WORK_QUEUE)
/* A thread for inference: k_work_submit_to_queue(&tvmt_work_queue, &work). */
extern struct k_work_q tvmt_work_queue;
#endif

/* Of instances with CONFIG_TVMTINY_<MODEL>_ARENA_SHARED: as large as the largest of them needs. */
extern uint8_t tvmt_shared_arena[];
extern struct k_mutex tvmt_shared_lock;
extern const struct tvmt_instance *tvmt_shared_owner;

#ifdef __cplusplus
}
#endif

#endif
