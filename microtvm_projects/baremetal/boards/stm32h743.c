/* STM32H743 at 480 MHz (revision V or later) from its own 64 MHz oscillator, caches on.
 *
 * NOT RUN ON HARDWARE: written from the manuals; that it links is tested. Quotation marks say
 * what to look for in RM0433.
 *
 * Serial port: a Nucleo-144's virtual COM port, USART3 on PD8 and PD9 (UM2407, "Virtual COM port"). The pin that is
 * high during a run: PA5, D13.
 */
#include "cortex_m7_caches.h"
#include "stm32_usart.h"

#define CORE_HZ 480000000u
#define APB_HZ 120000000u

#define RCC 0x58024400u
#define RCC_CR (RCC + 0x00u)
#define RCC_CFGR (RCC + 0x10u)
#define RCC_D1CFGR (RCC + 0x18u)
#define RCC_D2CFGR (RCC + 0x1cu)
#define RCC_D3CFGR (RCC + 0x20u)
#define RCC_PLLCKSELR (RCC + 0x28u)
#define RCC_PLLCFGR (RCC + 0x2cu)
#define RCC_PLL1DIVR (RCC + 0x30u)
#define RCC_AHB2ENR (RCC + 0xdcu)
#define RCC_AHB4ENR (RCC + 0xe0u)
#define RCC_APB1LENR (RCC + 0xe8u)
#define RCC_APB4ENR (RCC + 0xf4u)
#define PWR_CR3 0x5802480cu
#define PWR_CSR1 0x58024804u
#define PWR_D3CR 0x58024818u
#define SYSCFG_PWRCR 0x5800042cu
#define FLASH_ACR 0x52002000u
#define GPIO(letter) (0x58020000u + 0x400u * (uint32_t)((letter) - 'A'))
#define USART3 0x40004800u

#define CR_PLL1ON (1u << 24)
#define CR_PLL1RDY (1u << 25)
#define CR3_LDO 2u
#define CSR1_ACTVOSRDY (1u << 13)
#define D3CR_VOSRDY (1u << 13)
#define D3CR_VOS1 (3u << 14)
#define ACR_LATENCY_4_AT_240_MHZ 0x24u /* table 17: AXI at 240 MHz, VOS0 */
#define APB4ENR_SYSCFGEN (1u << 1)
#define CFGR_PLL1 3u
#define CFGR_SWS_MASK (7u << 3)
#define CFGR_SWS_PLL1 (3u << 3)

#define MARK_PIN 5u

/* "System supply startup" and "VOS0 activation/deactivation sequence": LDO, VOS1, then VOS0, which 480 MHz need. */
static void raise_voltage(void) {
  TVMT_REGISTER(PWR_CR3) = CR3_LDO;
  tvmt_wait_for(PWR_CSR1, CSR1_ACTVOSRDY, CSR1_ACTVOSRDY);
  TVMT_REGISTER(PWR_D3CR) = D3CR_VOS1;
  tvmt_wait_for(PWR_D3CR, D3CR_VOSRDY, D3CR_VOSRDY);
  TVMT_REGISTER(RCC_APB4ENR) |= APB4ENR_SYSCFGEN;
  (void)TVMT_REGISTER(RCC_APB4ENR);
  TVMT_REGISTER(SYSCFG_PWRCR) = 1;
  tvmt_wait_for(PWR_D3CR, D3CR_VOSRDY, D3CR_VOSRDY);
}

/* "PLL configuration procedure": PLL1 input 16 MHz (HSI / 4, range 8 to 16 MHz), wide VCO at 960 MHz, 480 MHz after P
 * = 2. */
static void start_pll(void) {
  TVMT_REGISTER(RCC_PLLCKSELR) = 4u << 4;
  TVMT_REGISTER(RCC_PLLCFGR) = 3u << 2 | 1u << 16;
  TVMT_REGISTER(RCC_PLL1DIVR) = (60u - 1u) | (2u - 1u) << 9 | (2u - 1u) << 16 | (2u - 1u) << 24;
  TVMT_REGISTER(RCC_CR) |= CR_PLL1ON;
  tvmt_wait_for(RCC_CR, CR_PLL1RDY, CR_PLL1RDY);
}

void tvmt_board_start(void) {
  tvmt_caches_on();
  raise_voltage();
  start_pll();
  TVMT_REGISTER(FLASH_ACR) = ACR_LATENCY_4_AT_240_MHZ;
  tvmt_wait_for(FLASH_ACR, 0x3fu, ACR_LATENCY_4_AT_240_MHZ);
  /* "System clock (sys_ck)": core 480 MHz, AXI and AHB 240 MHz, every APB 120 MHz. */
  TVMT_REGISTER(RCC_D1CFGR) = 8u | 4u << 4;
  TVMT_REGISTER(RCC_D2CFGR) = 4u << 4 | 4u << 8;
  TVMT_REGISTER(RCC_D3CFGR) = 4u << 4;
  TVMT_REGISTER(RCC_CFGR) = CFGR_PLL1;
  tvmt_wait_for(RCC_CFGR, CFGR_SWS_MASK, CFGR_SWS_PLL1);
  TVMT_REGISTER(RCC_AHB2ENR) |= 7u << 29; /* SRAM1, SRAM2, SRAM3 */
  TVMT_REGISTER(RCC_AHB4ENR) |= 1u << 0 | 1u << 3; /* GPIO A, D */
  (void)TVMT_REGISTER(RCC_AHB4ENR);
  tvmt_stm32_pin_mode(GPIO('A'), MARK_PIN, GPIO_OUTPUT);
}

uint32_t tvmt_board_clock_hz(void) { return CORE_HZ; }

void tvmt_board_mark(int running) { tvmt_stm32_pin_set(GPIO('A'), MARK_PIN, running); }

int tvmt_uart_open(void) {
  TVMT_REGISTER(RCC_APB1LENR) |= 1u << 18;
  (void)TVMT_REGISTER(RCC_APB1LENR);
  tvmt_stm32_pin_function(GPIO('D'), 8, 7);
  tvmt_stm32_pin_function(GPIO('D'), 9, 7);
  tvmt_stm32_usart_open(USART3, (APB_HZ + TVMT_BAUD / 2u) / TVMT_BAUD);
  return 0;
}

int tvmt_uart_get(void) { return tvmt_stm32_usart_get(USART3); }

void tvmt_uart_put(uint8_t byte) { tvmt_stm32_usart_put(USART3, byte); }

void tvmt_uart_flush(void) { tvmt_stm32_usart_flush(USART3); }
