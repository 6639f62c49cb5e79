/* nRF52840 (nRF52840-DK) at 64 MHz from its crystal, instruction cache on.
 *
 * NOT RUN ON HARDWARE: written from the manual; that it links is tested, and nrf_uart.h runs on QEMU's micro:bit.
 * Quotation marks say what to look for in the nRF52840 Product Specification v1.1.
 *
 * Serial port: that of the DK's debugger, P0.06 and P0.08 (nRF52840 DK hardware user guide, "Virtual COM port"). The
 * pin that is high during a run: P1.01, D0 of the Arduino header.
 */
#include "nrf_uart.h"

#define CORE_HZ 64000000u

#define CLOCK_HFCLKSTART TVMT_REGISTER(0x40000000u)
#define CLOCK_HFCLKSTARTED TVMT_REGISTER(0x40000100u)
#define NVMC_ICACHECNF TVMT_REGISTER(0x4001e540u)
#define P0_OUTSET TVMT_REGISTER(0x50000508u)
#define P0_DIRSET TVMT_REGISTER(0x50000518u)
#define P1_OUTSET TVMT_REGISTER(0x50000808u)
#define P1_OUTCLR TVMT_REGISTER(0x5000080cu)
#define P1_DIRSET TVMT_REGISTER(0x50000818u)

enum { TX_PIN = 6, RX_PIN = 8, MARK_PIN = 1 };

void tvmt_board_start(void) {
  NVMC_ICACHECNF = 1; /* "NVMC", instruction cache */
  CLOCK_HFCLKSTART = 1; /* "HFCLK clock controller": the core runs at 64 MHz at once; the crystal makes it exact */
  while (CLOCK_HFCLKSTARTED == 0u) {
  }
  P1_DIRSET = 1u << MARK_PIN;
}

uint32_t tvmt_board_clock_hz(void) { return CORE_HZ; }

void tvmt_board_mark(int running) {
  if (running != 0) {
    P1_OUTSET = 1u << MARK_PIN;
  } else {
    P1_OUTCLR = 1u << MARK_PIN;
  }
}

int tvmt_uart_open(void) {
  P0_OUTSET = 1u << TX_PIN; /* "UART", pin configuration: idle level while the UART does not drive the pin */
  P0_DIRSET = 1u << TX_PIN;
  tvmt_nrf_uart_open(TX_PIN, RX_PIN);
  return 0;
}

int tvmt_uart_get(void) { return tvmt_nrf_uart_get(); }

void tvmt_uart_put(uint8_t byte) { tvmt_nrf_uart_put(byte); }

void tvmt_uart_flush(void) {}
