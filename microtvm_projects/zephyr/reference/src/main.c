/* Runs a model on its reference samples and compares every output byte. */
#include <errno.h>
#include <string.h>

#include <zephyr/ztest.h>

#include "samples.h"
#include "tvmt_zephyr.h"

#define DIRTY 0xa5 /* the arena before a run: a model must not count on zeros */

/* What a run gave: its status, and the first output that differs from the reference, or NULL. */
struct outcome {
  int status;
  const char *differs;
};

/* Fills the arena with rubbish, and decodes the weights anew where they lie there. */
static int make_dirty(const struct tvmt_instance *instance) {
  const tvmt_model *model = instance->model;
  memset(instance->arena, DIRTY, instance->arena_bytes);
  return model->init == NULL ? 0 : model->init(instance->arena, instance->arena_bytes);
}

/* Asserts nothing, so that the arena is given back whatever happens. */
static struct outcome run_sample(const struct tvmt_instance *instance, uint32_t index) {
  const tvmt_model *model = instance->model;
  const struct sample *sample = &reference_samples[index];
  struct outcome found = {-ENOMEM, NULL};
  uint8_t *arena = tvmt_acquire(instance, K_FOREVER);
  if (arena == NULL) {
    return found;
  }
  found.status = make_dirty(instance);
  for (uint32_t i = 0; i < model->n_inputs; i++) {
    memcpy(arena + model->inputs[i].offset, sample->inputs[i], model->inputs[i].bytes);
  }
  if (found.status == 0) {
    found.status = tvmt_run(instance, sample->n_tokens);
  }
  for (uint32_t i = 0; i < model->n_outputs && found.differs == NULL; i++) {
    if (memcmp(arena + model->outputs[i].offset, sample->outputs[i], model->outputs[i].bytes) != 0) {
      found.differs = model->outputs[i].name;
    }
  }
  tvmt_release(instance);
  return found;
}

ZTEST(reference, test_outputs) {
  const struct tvmt_instance *instance = tvmt_find(reference_model);
  zassert_not_null(instance, "no model %s in this image", reference_model);
  for (uint32_t i = 0; i < reference_count; i++) {
    const struct outcome found = run_sample(instance, i);
    zassert_ok(found.status, "sample %u: status %d", i, found.status);
    zassert_is_null(found.differs, "sample %u: %s differs", i, found.differs);
  }
  TC_PRINT("%s: %u samples, arena at %p\n", reference_model, reference_count, instance->arena);
}

static K_THREAD_STACK_DEFINE(stack, CONFIG_ZTEST_STACK_SIZE);

static void run_first(void *instance, void *unused, void *unused_too) {
  ARG_UNUSED(unused);
  ARG_UNUSED(unused_too);
  (void)run_sample(instance, 0);
}

ZTEST(reference, test_stack) {
  static struct k_thread thread;
  size_t unused = 0;
  if (IS_ENABLED(CONFIG_ARCH_POSIX)) {
    ztest_test_skip(); /* threads have stacks of the host there */
  }
  k_thread_create(&thread, stack, K_THREAD_STACK_SIZEOF(stack), run_first, (void *)tvmt_find(reference_model), NULL,
                  NULL, K_PRIO_PREEMPT(0), 0, K_NO_WAIT);
  k_thread_join(&thread, K_FOREVER);
  zassert_ok(k_thread_stack_space_get(&thread, &unused));
  zassert_true(unused > 0, "the stack of %u bytes was used up", CONFIG_ZTEST_STACK_SIZE);
  TC_PRINT("%s: %u bytes of stack\n", reference_model, (unsigned int)(K_THREAD_STACK_SIZEOF(stack) - unused));
}

ZTEST_SUITE(reference, NULL, NULL, NULL, NULL, NULL);
