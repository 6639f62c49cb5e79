/* USART and LPUART of STM32F7, H7 and L4+, which have the same registers: RM0385, RM0433 and RM0432, "USART registers"
 * and "LPUART registers"; and the GPIO ports, which all have in common: there, "GPIO registers".
 *
 * NOT RUN ON HARDWARE: written from the manuals; that it links is tested.
 */
#ifndef TVMT_STM32_USART_H
#define TVMT_STM32_USART_H

#include "tvmt_board.h"

enum {
  USART_CR1 = 0x00,
  USART_BRR = 0x0c,
  USART_ISR = 0x1c,
  USART_ICR = 0x20,
  USART_RDR = 0x24,
  USART_TDR = 0x28,
  GPIO_MODER = 0x00,
  GPIO_BSRR = 0x18,
  GPIO_AFRL = 0x20
};

#define USART_CR1_UE_RE_TE 0x0du
#define USART_ISR_RXNE (1u << 5)
#define USART_ISR_TC (1u << 6)
#define USART_ISR_TXE (1u << 7)
#define USART_ICR_ERRORS 0x0fu /* parity, framing, noise, overrun: what a byte was worth, the CRC says */

#define GPIO_OUTPUT 1u
#define GPIO_ALTERNATE 2u

/* `divisor` is what the baud rate register holds. */
static inline void tvmt_stm32_usart_open(uint32_t base, uint32_t divisor) {
  TVMT_REGISTER(base + USART_BRR) = divisor;
  TVMT_REGISTER(base + USART_CR1) = USART_CR1_UE_RE_TE;
}

static inline int tvmt_stm32_usart_get(uint32_t base) {
  TVMT_REGISTER(base + USART_ICR) = USART_ICR_ERRORS;
  const int arrived = (TVMT_REGISTER(base + USART_ISR) & USART_ISR_RXNE) != 0u;
  return arrived ? (int)(TVMT_REGISTER(base + USART_RDR) & 0xffu) : -1;
}

static inline void tvmt_stm32_usart_put(uint32_t base, uint8_t byte) {
  while ((TVMT_REGISTER(base + USART_ISR) & USART_ISR_TXE) == 0u) {
  }
  TVMT_REGISTER(base + USART_TDR) = byte;
}

static inline void tvmt_stm32_usart_flush(uint32_t base) {
  while ((TVMT_REGISTER(base + USART_ISR) & USART_ISR_TC) == 0u) {
  }
}

static inline void tvmt_stm32_pin_mode(uint32_t port, uint32_t pin, uint32_t mode) {
  const uint32_t others = TVMT_REGISTER(port + GPIO_MODER) & ~(3u << (2u * pin));
  TVMT_REGISTER(port + GPIO_MODER) = others | mode << (2u * pin);
}

static inline void tvmt_stm32_pin_function(uint32_t port, uint32_t pin, uint32_t function) {
  const uint32_t word = port + GPIO_AFRL + 4u * (pin / 8u), shift = 4u * (pin % 8u);
  TVMT_REGISTER(word) = (TVMT_REGISTER(word) & ~(15u << shift)) | function << shift;
  tvmt_stm32_pin_mode(port, pin, GPIO_ALTERNATE);
}

static inline void tvmt_stm32_pin_set(uint32_t port, uint32_t pin, int high) {
  TVMT_REGISTER(port + GPIO_BSRR) = 1u << (high != 0 ? pin : pin + 16u);
}

/* Waits until the bits of `mask` at `address` are `value`. */
static inline void tvmt_wait_for(uint32_t address, uint32_t mask, uint32_t value) {
  while ((TVMT_REGISTER(address) & mask) != value) {
  }
}

#endif
