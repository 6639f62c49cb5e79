/* UART of nRF51 and nRF52: nRF51 Series Reference Manual v3.0 and nRF52840 Product Specification v1.1, "UART",
 * the one without DMA.
 */
#ifndef TVMT_NRF_UART_H
#define TVMT_NRF_UART_H

#include "tvmt_board.h"

#define NRF_UART 0x40002000u
#define UART_STARTRX TVMT_REGISTER(NRF_UART + 0x000u)
#define UART_STARTTX TVMT_REGISTER(NRF_UART + 0x008u)
#define UART_RXDRDY TVMT_REGISTER(NRF_UART + 0x108u)
#define UART_TXDRDY TVMT_REGISTER(NRF_UART + 0x11cu)
#define UART_ENABLE TVMT_REGISTER(NRF_UART + 0x500u)
#define UART_PSELTXD TVMT_REGISTER(NRF_UART + 0x50cu)
#define UART_PSELRXD TVMT_REGISTER(NRF_UART + 0x514u)
#define UART_RXD TVMT_REGISTER(NRF_UART + 0x518u)
#define UART_TXD TVMT_REGISTER(NRF_UART + 0x51cu)
#define UART_BAUDRATE TVMT_REGISTER(NRF_UART + 0x524u)

#define UART_ENABLED 4u
#define UART_115200_BAUD 0x01d7e000u

static inline void tvmt_nrf_uart_open(uint32_t tx_pin, uint32_t rx_pin) {
  UART_PSELTXD = tx_pin;
  UART_PSELRXD = rx_pin;
  UART_BAUDRATE = UART_115200_BAUD;
  UART_ENABLE = UART_ENABLED;
  UART_STARTRX = 1;
  UART_STARTTX = 1;
}

static inline int tvmt_nrf_uart_get(void) {
  if (UART_RXDRDY == 0u) {
    return -1;
  }
  UART_RXDRDY = 0; /* before the read: the next byte may be waiting already */
  return (int)(UART_RXD & 0xffu);
}

/* TXDRDY says that the byte before has left. */
static inline void tvmt_nrf_uart_put(uint8_t byte) {
  UART_TXDRDY = 0;
  UART_TXD = byte;
  while (UART_TXDRDY == 0u) {
  }
}

#endif
