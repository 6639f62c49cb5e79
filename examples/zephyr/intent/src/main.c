/* An intent classifier in the Zephyr shell, on whatever UART that is:  intent play some jazz */
#include <errno.h>
#include <string.h>

#include <zephyr/shell/shell.h>

#include "intent_zephyr.h"
#include "tvmt_classify.h"

#define REJECT_BELOW 500 /* per mille */

static int classify(const struct shell *sh, size_t argc, char **argv) {
  ARG_UNUSED(argc);
  void *arena = tvmt_acquire(&intent_instance, K_FOREVER);
  if (arena == NULL) {
    shell_error(sh, "no arena");
    return -ENOMEM;
  }
  const int status = intent_run_text(arena, intent_instance.arena_bytes, argv[1], strlen(argv[1]));
  const tvmt_class found = tvmt_classify_s16(intent_logits(arena), INTENT_LOGITS_COUNT, INTENT_LOGITS_SCALE_Q32);
  tvmt_release(&intent_instance);
  if (status != INTENT_OK) {
    shell_error(sh, "error %d", status);
    return status;
  }
  shell_print(sh, "%s (%d.%d %%)", found.confidence < REJECT_BELOW ? "not sure" : intent_labels[found.best],
              (int)found.confidence / 10, (int)found.confidence % 10);
  return 0;
}

/* The raw argument is the rest of the line, blanks included. */
SHELL_CMD_ARG_REGISTER(intent, NULL, "Classify a text: intent TEXT", classify, 2, SHELL_OPT_ARG_RAW);

int main(void) { return 0; }
