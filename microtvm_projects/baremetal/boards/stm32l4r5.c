/* STM32L4R5 at 120 MHz (range 1, boost) from its own 16 MHz oscillator, flash caches and prefetch on.
 *
 * NOT RUN ON HARDWARE: written from the manuals; that it links is tested. Quotation marks say
 * what to look for in RM0432.
 *
 * Serial port: a Nucleo-144's virtual COM port, LPUART1 on PG7 and PG8 (UM2179, "Virtual COM port"). The pin that is
 * high during a run: PA5, D13.
 */
#include "stm32_usart.h"

#define CORE_HZ 120000000u

#define RCC 0x40021000u
#define RCC_CR (RCC + 0x00u)
#define RCC_CFGR (RCC + 0x08u)
#define RCC_PLLCFGR (RCC + 0x0cu)
#define RCC_AHB2ENR (RCC + 0x4cu)
#define RCC_APB1ENR1 (RCC + 0x58u)
#define RCC_APB1ENR2 (RCC + 0x5cu)
#define PWR_CR2 0x40007004u
#define PWR_CR5 0x40007080u
#define FLASH_ACR 0x40022000u
#define GPIO(letter) (0x48000000u + 0x400u * (uint32_t)((letter) - 'A'))
#define LPUART1 0x40008000u

#define CR_HSION (1u << 8)
#define CR_HSIRDY (1u << 10)
#define CR_PLLON (1u << 24)
#define CR_PLLRDY (1u << 25)
#define APB1ENR1_PWREN (1u << 28)
#define CR2_IOSV (1u << 9)
#define CR5_R1MODE (1u << 8)
#define ACR_LATENCY_5 5u /* table 13: 120 MHz, range 1 boost */
#define ACR_PREFETCH_CACHES (1u << 8 | 1u << 9 | 1u << 10)
#define CFGR_PLL 3u
#define CFGR_SWS_MASK (3u << 2)
#define CFGR_SWS_PLL (3u << 2)
#define CFGR_AHB_DIV2 (8u << 4)

#define MARK_PIN 5u

/* "PLL configuration register": PLL input 8 MHz (HSI16 / 2), VCO 240 MHz, 120 MHz after R = 2. */
static void start_pll(void) {
  TVMT_REGISTER(RCC_CR) |= CR_HSION;
  tvmt_wait_for(RCC_CR, CR_HSIRDY, CR_HSIRDY);
  TVMT_REGISTER(RCC_PLLCFGR) = 2u | (2u - 1u) << 4 | 30u << 8 | 1u << 24;
  TVMT_REGISTER(RCC_CR) |= CR_PLLON;
  tvmt_wait_for(RCC_CR, CR_PLLRDY, CR_PLLRDY);
}

/* "Dynamic voltage scaling management": into range 1 boost by half the frequency first, for at least a microsecond. */
static void switch_to_pll(void) {
  TVMT_REGISTER(RCC_CFGR) = CFGR_AHB_DIV2 | CFGR_PLL;
  tvmt_wait_for(RCC_CFGR, CFGR_SWS_MASK, CFGR_SWS_PLL);
  for (volatile uint32_t i = 0; i < 60u; i++) {
  }
  TVMT_REGISTER(RCC_CFGR) = CFGR_PLL;
}

void tvmt_board_start(void) {
  TVMT_REGISTER(RCC_APB1ENR1) |= APB1ENR1_PWREN;
  (void)TVMT_REGISTER(RCC_APB1ENR1);
  TVMT_REGISTER(PWR_CR5) &= ~CR5_R1MODE;
  TVMT_REGISTER(FLASH_ACR) = ACR_LATENCY_5 | ACR_PREFETCH_CACHES;
  tvmt_wait_for(FLASH_ACR, 15u, ACR_LATENCY_5);
  start_pll();
  switch_to_pll();
  TVMT_REGISTER(RCC_AHB2ENR) |= 1u << 0 | 1u << 6; /* GPIO A, G */
  (void)TVMT_REGISTER(RCC_AHB2ENR);
  tvmt_stm32_pin_mode(GPIO('A'), MARK_PIN, GPIO_OUTPUT);
}

uint32_t tvmt_board_clock_hz(void) { return CORE_HZ; }

void tvmt_board_mark(int running) { tvmt_stm32_pin_set(GPIO('A'), MARK_PIN, running); }

int tvmt_uart_open(void) {
  TVMT_REGISTER(PWR_CR2) |= CR2_IOSV; /* "Independent I/O supply rail": port G hangs on VDDIO2 */
  TVMT_REGISTER(RCC_APB1ENR2) |= 1u;
  (void)TVMT_REGISTER(RCC_APB1ENR2);
  tvmt_stm32_pin_function(GPIO('G'), 7, 8);
  tvmt_stm32_pin_function(GPIO('G'), 8, 8);
  /* "LPUART baud rate generation": LPUARTDIV = 256 times clock by baud rate. 256 / 115200 = 1 / 450. */
  tvmt_stm32_usart_open(LPUART1, CORE_HZ / (TVMT_BAUD / 256u));
  return 0;
}

int tvmt_uart_get(void) { return tvmt_stm32_usart_get(LPUART1); }

void tvmt_uart_put(uint8_t byte) { tvmt_stm32_usart_put(LPUART1, byte); }

void tvmt_uart_flush(void) { tvmt_stm32_usart_flush(LPUART1); }
