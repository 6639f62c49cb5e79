/* STM32F746 at 216 MHz from its own 16 MHz oscillator (within 1 %, on every board), caches and flash accelerator on.
 *
 * NOT RUN ON HARDWARE: written from the manuals; that it links is tested. Quotation marks say
 * what to look for in RM0385.
 *
 * Serial port: the Discovery's virtual COM port, USART1 on PA9 and PB7 (UM1907, "Virtual COM port"). With flags =
 * ["-DTVMT_BOARD_NUCLEO144"] in the target's file that of a Nucleo-144, USART3 on PD8 and PD9 (UM1974, "USART
 * communication"). The pin that is high during a run: PI1, D13 of the Discovery; PA5, D13 of the Nucleo.
 */
#include "cortex_m7_caches.h"
#include "stm32_usart.h"

#define CORE_HZ 216000000u

#define RCC 0x40023800u
#define RCC_CR (RCC + 0x00u)
#define RCC_PLLCFGR (RCC + 0x04u)
#define RCC_CFGR (RCC + 0x08u)
#define RCC_AHB1ENR (RCC + 0x30u)
#define RCC_APB1ENR (RCC + 0x40u)
#define RCC_APB2ENR (RCC + 0x44u)
#define PWR_CR1 0x40007000u
#define PWR_CSR1 0x40007004u
#define FLASH_ACR 0x40023c00u
#define GPIO(letter) (0x40020000u + 0x400u * (uint32_t)((letter) - 'A'))

#define CR_PLLON (1u << 24)
#define CR_PLLRDY (1u << 25)
#define APB1ENR_PWREN (1u << 28)
#define CR1_ODEN (1u << 16)
#define CR1_ODSWEN (1u << 17)
#define CSR1_ODRDY (1u << 16)
#define CSR1_ODSWRDY (1u << 17)
#define ACR_PRFTEN (1u << 8)
#define ACR_ARTEN (1u << 9)
#define ACR_LATENCY_7 7u /* table 5: 216 MHz at 2.7 to 3.6 V */
#define CFGR_PLL 2u
#define CFGR_SWS_MASK (3u << 2)
#define CFGR_SWS_PLL (2u << 2)
#define CFGR_APB1_DIV4 (5u << 10) /* 54 MHz at most */
#define CFGR_APB2_DIV2 (4u << 13) /* 108 MHz at most */

#ifdef TVMT_BOARD_NUCLEO144
#define USART 0x40004800u
#define USART_HZ (CORE_HZ / 4u)
#define MARK_PORT GPIO('A')
#define MARK_PIN 5u
#else
#define USART 0x40011000u
#define USART_HZ (CORE_HZ / 2u)
#define MARK_PORT GPIO('I')
#define MARK_PIN 1u
#endif

/* "PLL configuration register": VCO input 2 MHz (HSI / 8), VCO 432 MHz, 216 MHz after P = 2; Q = 9 for a 48 MHz clock
 * nobody uses. */
static void start_pll(void) {
  TVMT_REGISTER(RCC_PLLCFGR) = 8u | 216u << 6 | 0u << 16 | 9u << 24;
  TVMT_REGISTER(RCC_CR) |= CR_PLLON;
}

/* "Entering Over-drive mode", which more than 180 MHz need; the regulator starts in scale 1. */
static void enter_over_drive(void) {
  TVMT_REGISTER(PWR_CR1) |= CR1_ODEN;
  tvmt_wait_for(PWR_CSR1, CSR1_ODRDY, CSR1_ODRDY);
  TVMT_REGISTER(PWR_CR1) |= CR1_ODSWEN;
  tvmt_wait_for(PWR_CSR1, CSR1_ODSWRDY, CSR1_ODSWRDY);
}

void tvmt_board_start(void) {
  tvmt_caches_on();
  TVMT_REGISTER(RCC_APB1ENR) |= APB1ENR_PWREN;
  (void)TVMT_REGISTER(RCC_APB1ENR); /* "Peripheral clock enable": two cycles until it is there */
  start_pll();
  enter_over_drive();
  tvmt_wait_for(RCC_CR, CR_PLLRDY, CR_PLLRDY);
  /* "Adaptive real-time memory accelerator": it serves fetches by the ITCM interface, 0x00200000; those at
   * 0x08000000, where the program is linked, come through the caches. */
  TVMT_REGISTER(FLASH_ACR) = ACR_LATENCY_7 | ACR_PRFTEN | ACR_ARTEN;
  tvmt_wait_for(FLASH_ACR, 15u, ACR_LATENCY_7);
  TVMT_REGISTER(RCC_CFGR) = CFGR_APB1_DIV4 | CFGR_APB2_DIV2;
  TVMT_REGISTER(RCC_CFGR) |= CFGR_PLL;
  tvmt_wait_for(RCC_CFGR, CFGR_SWS_MASK, CFGR_SWS_PLL);
  TVMT_REGISTER(RCC_AHB1ENR) |= 1u << 0 | 1u << 1 | 1u << 3 | 1u << 8; /* GPIO A, B, D, I */
  (void)TVMT_REGISTER(RCC_AHB1ENR);
  tvmt_stm32_pin_mode(MARK_PORT, MARK_PIN, GPIO_OUTPUT);
}

uint32_t tvmt_board_clock_hz(void) { return CORE_HZ; }

void tvmt_board_mark(int running) { tvmt_stm32_pin_set(MARK_PORT, MARK_PIN, running); }

int tvmt_uart_open(void) {
#ifdef TVMT_BOARD_NUCLEO144
  TVMT_REGISTER(RCC_APB1ENR) |= 1u << 18;
  tvmt_stm32_pin_function(GPIO('D'), 8, 7);
  tvmt_stm32_pin_function(GPIO('D'), 9, 7);
#else
  TVMT_REGISTER(RCC_APB2ENR) |= 1u << 4;
  tvmt_stm32_pin_function(GPIO('A'), 9, 7);
  tvmt_stm32_pin_function(GPIO('B'), 7, 7);
#endif
  tvmt_stm32_usart_open(USART, (USART_HZ + TVMT_BAUD / 2u) / TVMT_BAUD);
  return 0;
}

int tvmt_uart_get(void) { return tvmt_stm32_usart_get(USART); }

void tvmt_uart_put(uint8_t byte) { tvmt_stm32_usart_put(USART, byte); }

void tvmt_uart_flush(void) { tvmt_stm32_usart_flush(USART); }
