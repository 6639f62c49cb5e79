/* No counter, for emulated cores whose instructions are counted from outside: an interrupt would count as well. */
#include "tvmt_transport.h"

enum tvmt_counter tvmt_counter_start(uint32_t *hertz) {
  *hertz = 0;
  return TVMT_COUNTER_NONE;
}

uint64_t tvmt_counter_read(void) { return 0; }

void tvmt_mark(int running) { (void)running; }
