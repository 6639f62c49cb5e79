/* Shell commands: `tvmtiny list`, `tvmtiny bench MODEL [RUNS]`. */
#include "tvmt_zephyr.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <zephyr/shell/shell.h>

static int list(const struct shell *sh, size_t argc, char **argv) {
  ARG_UNUSED(argc);
  ARG_UNUSED(argv);
  STRUCT_SECTION_FOREACH(tvmt_instance, instance) {
    const tvmt_model *model = instance->model;
    shell_print(sh, "%s: %d tokens, arena %u bytes at %p", model->name, (int)model->max_tokens, model->arena_bytes,
                instance->arena);
  }
  return 0;
}

/* Cycles of one run with the longest input, of zeros, so that figures can be compared; or a negative error. */
static int measure(const struct tvmt_instance *instance, uint32_t *cycles) {
  const tvmt_model *model = instance->model;
  uint8_t *arena = tvmt_acquire(instance, K_FOREVER);
  if (arena == NULL) {
    return -ENOMEM;
  }
  for (uint32_t i = 0; i < model->n_inputs; i++) {
    memset(arena + model->inputs[i].offset, 0, model->inputs[i].bytes);
  }
  const uint32_t start = k_cycle_get_32();
  const int status = tvmt_run(instance, model->max_tokens);
  *cycles = k_cycle_get_32() - start;
  tvmt_release(instance);
  return status;
}

static int bench(const struct shell *sh, size_t argc, char **argv) {
  const struct tvmt_instance *instance = tvmt_find(argv[1]);
  const unsigned long runs = argc > 2 ? strtoul(argv[2], NULL, 10) : 10;
  uint32_t least = UINT32_MAX, most = 0, cycles = 0;
  if (instance == NULL || runs == 0) {
    shell_error(sh, instance == NULL ? "no model of this name: tvmtiny list" : "RUNS is at least 1");
    return -EINVAL;
  }
  for (unsigned long i = 0; i < runs; i++) {
    const int status = measure(instance, &cycles);
    if (status != 0) {
      shell_error(sh, "error %d", status);
      return status;
    }
    least = MIN(least, cycles);
    most = MAX(most, cycles);
  }
  shell_print(sh, "%s: %u to %u cycles of %u Hz, %lu runs of %d tokens", argv[1], least, most,
              (unsigned int)sys_clock_hw_cycles_per_sec(), runs, (int)instance->model->max_tokens);
  return 0;
}

SHELL_STATIC_SUBCMD_SET_CREATE(commands,
                               SHELL_CMD(list, NULL, "The models of this image", list),
                               SHELL_CMD_ARG(bench, NULL, "Time a model: bench MODEL [RUNS]", bench, 2, 1),
                               SHELL_SUBCMD_SET_END);
SHELL_CMD_REGISTER(tvmtiny, &commands, "Compiled models", NULL);
