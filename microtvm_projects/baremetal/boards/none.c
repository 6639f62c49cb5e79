/* A board of which only core and memory are known: no clock is set up, and there is no serial port. */
#include "tvmt_board.h"

void tvmt_board_start(void) {}

uint32_t tvmt_board_clock_hz(void) { return 0; }

void tvmt_board_mark(int running) { (void)running; }

int tvmt_uart_open(void) { return -1; }

int tvmt_uart_get(void) { return -1; }

void tvmt_uart_put(uint8_t byte) { (void)byte; }

void tvmt_uart_flush(void) {}
