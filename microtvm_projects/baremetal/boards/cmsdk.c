/* QEMU's machines of Arm's MPS2 and MPS3 boards: their first UART, of the Cortex-M System Design Kit.
 *
 * TVMT_UART_BASE comes from the target's file. Source: Arm DDI 0479, Cortex-M System Design Kit Technical Reference
 * Manual, "APB UART".
 */
#include "tvmt_board.h"

#ifndef TVMT_UART_BASE
#error "a target with board = \"cmsdk\" needs uart_base"
#endif

#define UART_DATA TVMT_REGISTER(TVMT_UART_BASE + 0x00u)
#define UART_STATE TVMT_REGISTER(TVMT_UART_BASE + 0x04u)
#define UART_CTRL TVMT_REGISTER(TVMT_UART_BASE + 0x08u)
#define UART_BAUDDIV TVMT_REGISTER(TVMT_UART_BASE + 0x10u)

#define STATE_TX_FULL 1u
#define STATE_RX_FULL 2u
#define CTRL_TX_RX 3u
#define LEAST_DIVISOR 16u /* as fast as it goes: on an emulated line a baud rate only slows */

void tvmt_board_start(void) {}

uint32_t tvmt_board_clock_hz(void) { return 0; }

void tvmt_board_mark(int running) { (void)running; }

int tvmt_uart_open(void) {
  UART_BAUDDIV = LEAST_DIVISOR;
  UART_CTRL = CTRL_TX_RX;
  return 0;
}

int tvmt_uart_get(void) { return (UART_STATE & STATE_RX_FULL) != 0u ? (int)(UART_DATA & 0xffu) : -1; }

void tvmt_uart_put(uint8_t byte) {
  while ((UART_STATE & STATE_TX_FULL) != 0u) {
  }
  UART_DATA = byte;
}

void tvmt_uart_flush(void) {
  while ((UART_STATE & STATE_TX_FULL) != 0u) {
  }
}
