/* What can be measured of a run on a host: time by its clock. Its stack is shared with the C library and the operating
 * system: nothing is told of it. */
#define _POSIX_C_SOURCE 199309L

#include <time.h>

#include "tvmt_transport.h"

void tvmt_stack_paint(void) {}

uint32_t tvmt_stack_peak(const void *top) {
  (void)top;
  return 0;
}

enum tvmt_counter tvmt_counter_start(uint32_t *hertz) {
  *hertz = 1000000000u;
  return TVMT_COUNTER_HOST;
}

uint64_t tvmt_counter_read(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void tvmt_mark(int running) { (void)running; }
