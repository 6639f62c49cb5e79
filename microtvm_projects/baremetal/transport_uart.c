/* Transport of a board without a debugger: its serial port. What is for a person travels in frames of its own. */
#include "tvmt_board.h"
#include "tvmt_say.h"
#include "tvmt_transport.h"

#define SCB_AIRCR TVMT_REGISTER(0xe000ed0cu)
#define AIRCR_SYSRESETREQ 0x05fa0004u /* with the key that it needs: Armv7-M manual, "AIRCR" */

int tvmt_transport_open(void) { return tvmt_uart_open(); }

int32_t tvmt_transport_read(uint8_t *to, uint32_t capacity) {
  int byte;
  do {
    byte = tvmt_uart_get();
  } while (byte < 0);
  uint32_t count = 0;
  while (byte >= 0) {
    to[count++] = (uint8_t)byte;
    byte = count < capacity ? tvmt_uart_get() : -1;
  }
  return (int32_t)count;
}

int tvmt_transport_write(void *context, const uint8_t *bytes, uint32_t count) {
  (void)context;
  for (uint32_t i = 0; i < count; i++) {
    tvmt_uart_put(bytes[i]);
  }
  return 0;
}

void tvmt_transport_log(const char *text) { tvmt_say(text); }

_Noreturn void tvmt_transport_exit(int status) {
  tvmt_say_exit(status);
  tvmt_uart_flush();
  for (;;) {
    __asm__ volatile("dsb" ::: "memory");
    SCB_AIRCR = AIRCR_SYSRESETREQ;
  }
}
