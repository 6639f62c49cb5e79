/* What the start-up code, the counter and the UART transport need from a board, or from an emulated machine: one C file
 * of boards/ defines it. A link of the program has exactly one of them.
 */
#ifndef TVMT_BOARD_H
#define TVMT_BOARD_H

#include <stdint.h>

#ifndef TVMT_REGISTER /* tests put cells of memory in its place */
#define TVMT_REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))
#endif
#define TVMT_BAUD 115200u

/* Sets up clock, flash and caches. Called first of all: variables have no values yet. */
void tvmt_board_start(void);

/* Core clock in hertz after that; 0 for an emulated machine, whose time says nothing. */
uint32_t tvmt_board_clock_hz(void);

/* Sets (1) or clears (0) the pin that is high while a run lasts; nothing where there is none. */
void tvmt_board_mark(int running);

/* The serial port that reaches the developer's machine: 115,200 baud, 8 data bits, no parity, 1 stop bit. Returns 0, or
 * negative when the board has none. */
int tvmt_uart_open(void);

/* The next byte that has arrived, or -1; what is lost is lost silently, frames have a CRC. */
int tvmt_uart_get(void);

/* Waits until there is room and sends a byte. */
void tvmt_uart_put(uint8_t byte);

/* Waits until everything has been sent. */
void tvmt_uart_flush(void);

#endif
