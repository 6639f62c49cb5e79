/* What all models of a Zephyr image share; tvmt_zephyr.h says what each function does.
 *
 * Defined by the build: TVMT_SHARED_ARENA_BYTES and TVMT_SHARED_ARENA_ALIGN, the largest of the models that share;
 * 0 bytes when none does.
 */
#include "tvmt_zephyr.h"

#include <errno.h>
#include <string.h>

#include <zephyr/init.h>
#include <zephyr/logging/log.h>

LOG_MODULE_REGISTER(tvmtiny, CONFIG_TVMT_LOG_LEVEL);

#if TVMT_SHARED_ARENA_BYTES > 0
TVMT_ARENA_MEMORY uint8_t __aligned(TVMT_SHARED_ARENA_ALIGN) tvmt_shared_arena[TVMT_SHARED_ARENA_BYTES];
K_MUTEX_DEFINE(tvmt_shared_lock);
const struct tvmt_instance *tvmt_shared_owner;
#endif

const struct tvmt_instance *tvmt_find(const char *name) {
  STRUCT_SECTION_FOREACH(tvmt_instance, instance) {
    if (strcmp(instance->model->name, name) == 0) {
      return instance;
    }
  }
  return NULL;
}

void *tvmt_acquire(const struct tvmt_instance *instance, k_timeout_t timeout) {
  if (instance->arena == NULL || k_mutex_lock(instance->lock, timeout) != 0) {
    return NULL;
  }
  if (*instance->owner == instance) {
    return instance->arena; /* what it decoded is still there */
  }
  const tvmt_model *model = instance->model;
  *instance->owner = NULL;
  if (model->init != NULL && model->init(instance->arena, instance->arena_bytes) != 0) {
    LOG_ERR("%s cannot decode its weights", model->name);
    tvmt_release(instance);
    return NULL;
  }
  *instance->owner = instance;
  return instance->arena;
}

void tvmt_release(const struct tvmt_instance *instance) {
  if (instance->arena != NULL) {
    (void)k_mutex_unlock(instance->lock);
  }
}

int tvmt_run(const struct tvmt_instance *instance, int32_t n_tokens) {
  const tvmt_model *model = instance->model;
  if (instance->arena == NULL) {
    LOG_ERR("%s has no arena here", model->name);
    return -ENOMEM;
  }
  const uint32_t start = k_cycle_get_32();
  const int status = model->run(instance->arena, instance->arena_bytes, n_tokens);
  if (status != 0) {
    LOG_ERR("%s: error %d with %d tokens", model->name, status, (int)n_tokens);
  } else {
    LOG_DBG("%s: %u cycles for %d tokens", model->name, k_cycle_get_32() - start, (int)n_tokens);
  }
  return status;
}

#if defined(CONFIG_TVMT_WORK_QUEUE)
struct k_work_q tvmt_work_queue;
static K_THREAD_STACK_DEFINE(work_stack, CONFIG_TVMT_STACK_SIZE);

static int start_work_queue(void) {
  const struct k_work_queue_config config = {.name = "tvmtiny"};
  k_work_queue_start(&tvmt_work_queue, work_stack, K_THREAD_STACK_SIZEOF(work_stack), CONFIG_TVMT_THREAD_PRIORITY,
                     &config);
  return 0;
}

SYS_INIT(start_work_queue, APPLICATION, CONFIG_APPLICATION_INIT_PRIORITY);
#endif
