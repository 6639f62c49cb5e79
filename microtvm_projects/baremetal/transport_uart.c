/* Transport of a board without a debugger: its serial port. What is for a person travels in frames of its own. */
#include "tvmt_board.h"
#include "tvmt_transport.h"

#define SCB_AIRCR TVMT_REGISTER(0xe000ed0cu)
#define AIRCR_SYSRESETREQ 0x05fa0004u /* with the key that it needs: Armv7-M manual, "AIRCR" */

#define LOG_BYTES 64u

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

void tvmt_transport_log(const char *text) {
  static uint8_t frame[LOG_BYTES + TVMT_FRAME_EXTRA_BYTES];
  uint32_t count = 0;
  while (text[count] != '\0' && count < LOG_BYTES) {
    frame[TVMT_FRAME_HEADER_BYTES + count] = (uint8_t)text[count];
    count++;
  }
  for (uint32_t i = 0; i < TVMT_FRAME_HEADER_BYTES; i++) {
    frame[i] = 0;
  }
  frame[TVMT_FRAME_KIND_AT] = TVMT_LINK_LOG;
  tvmt_uart_put(0); /* ends an answer that was cut short */
  (void)tvmt_frame_send(frame, count, tvmt_transport_write, 0);
}

_Noreturn void tvmt_transport_exit(int status) {
  char text[] = "exit 000\n";
  for (uint32_t i = 0, rest = (uint32_t)status; i < 3u; i++, rest /= 10u) {
    text[7u - i] = (char)('0' + rest % 10u);
  }
  tvmt_transport_log(text);
  tvmt_uart_flush();
  for (;;) {
    __asm__ volatile("dsb" ::: "memory");
    SCB_AIRCR = AIRCR_SYSRESETREQ;
  }
}
