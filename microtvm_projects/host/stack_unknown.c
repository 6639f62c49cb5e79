/* A host's stack is shared with its C library and operating system: nothing is told of it. */
#include "tvmt_transport.h"

void tvmt_stack_paint(void) {}

uint32_t tvmt_stack_peak(const void *top) {
  (void)top;
  return 0;
}
