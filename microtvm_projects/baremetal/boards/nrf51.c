/* BBC micro:bit (nRF51822) as QEMU emulates it: pins as in its schematic 1.3b, P0.24 to and P0.25 from the debugger. */
#include "nrf_uart.h"

enum { TX_PIN = 24, RX_PIN = 25 };

void tvmt_board_start(void) {}

uint32_t tvmt_board_clock_hz(void) { return 0; }

void tvmt_board_mark(int running) { (void)running; }

int tvmt_uart_open(void) {
  tvmt_nrf_uart_open(TX_PIN, RX_PIN);
  return 0;
}

int tvmt_uart_get(void) { return tvmt_nrf_uart_get(); }

void tvmt_uart_put(uint8_t byte) { tvmt_nrf_uart_put(byte); }

void tvmt_uart_flush(void) {}
