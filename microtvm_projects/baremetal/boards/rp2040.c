/* RP2040 (Raspberry Pi Pico) at 133 MHz from its 12 MHz crystal, with its second-stage boot loader.
 *
 * NOT RUN ON HARDWARE: written from the manual; that it links, and the loader's checksum, are tested. Quotation
 * marks say what to look for in the RP2040 datasheet.
 *
 * Serial port: UART0 on GPIO0 and GPIO1, pins 1 and 2 of the Pico, as the Raspberry Pi Debug Probe has it; not USB.
 * The pin that is high during a run: GPIO2.
 */
#include "tvmt_board.h"

#define CORE_HZ 133000000u

/* "Atomic register access": 0x3000 above a register clears bits of it. */
#define RESETS_RESET_CLEAR TVMT_REGISTER(0x4000f000u)
#define RESETS_RESET_DONE TVMT_REGISTER(0x4000c008u)
#define XOSC_CTRL TVMT_REGISTER(0x40024000u)
#define XOSC_STATUS TVMT_REGISTER(0x40024004u)
#define XOSC_STARTUP TVMT_REGISTER(0x4002400cu)
#define PLL_CS TVMT_REGISTER(0x40028000u)
#define PLL_PWR TVMT_REGISTER(0x40028004u)
#define PLL_FBDIV TVMT_REGISTER(0x40028008u)
#define PLL_PRIM TVMT_REGISTER(0x4002800cu)
#define CLK_REF_CTRL TVMT_REGISTER(0x40008030u)
#define CLK_REF_SELECTED TVMT_REGISTER(0x40008038u)
#define CLK_SYS_CTRL TVMT_REGISTER(0x4000803cu)
#define CLK_SYS_SELECTED TVMT_REGISTER(0x40008044u)
#define CLK_PERI_CTRL TVMT_REGISTER(0x40008048u)
#define GPIO_CTRL(pin) TVMT_REGISTER(0x40014004u + 8u * (pin))
#define SIO_OUT_SET TVMT_REGISTER(0xd0000014u)
#define SIO_OUT_CLR TVMT_REGISTER(0xd0000018u)
#define SIO_OE_SET TVMT_REGISTER(0xd0000024u)
#define UART_DR TVMT_REGISTER(0x40034000u)
#define UART_FR TVMT_REGISTER(0x40034018u)
#define UART_IBRD TVMT_REGISTER(0x40034024u)
#define UART_FBRD TVMT_REGISTER(0x40034028u)
#define UART_LCR_H TVMT_REGISTER(0x4003402cu)
#define UART_CR TVMT_REGISTER(0x40034030u)

#define RESET_IO_BANK0 (1u << 5)
#define RESET_PADS_BANK0 (1u << 8)
#define RESET_PLL_SYS (1u << 12)
#define RESET_UART0 (1u << 22)
#define XOSC_ENABLE_1_15_MHZ (0xfabu << 12 | 0xaa0u)
#define XOSC_STARTUP_1_MS 47u /* times 256 cycles of 12 MHz */
#define READY (1u << 31)      /* XOSC stable, PLL locked */
#define PLL_FEEDBACK 133u     /* 12 MHz * 133 = 1,596 MHz, / 6 / 2 = 133 MHz */
#define PLL_DIVIDERS (6u << 16 | 2u << 12)
#define PLL_PWR_DSM_OFF (1u << 2) /* the fractional part is not used */
#define PLL_PWR_POSTDIV_OFF (1u << 3)
#define CLK_PERI_ENABLE (1u << 11)
#define FUNCTION_UART 2u
#define FUNCTION_SIO 5u
#define FR_BUSY (1u << 3)
#define FR_RX_EMPTY (1u << 4)
#define FR_TX_FULL (1u << 5)
#define LCR_8_BITS_FIFOS (3u << 5 | 1u << 4)
#define CR_ENABLE_TX_RX (1u | 1u << 8 | 1u << 9)
#define DIVISOR_Q6 ((CORE_HZ * 4u + TVMT_BAUD / 2u) / TVMT_BAUD) /* clock / (16 * baud), in units of 1/64 */

enum { TX_PIN = 0, RX_PIN = 1, MARK_PIN = 2 };

/* "Flash second stage": the boot ROM copies 252 bytes from the start of flash to RAM, checks the CRC behind them, and
 * calls them. They set up the serial interface ("SSI") for reads with command 0x03, which every flash chip has, at a
 * quarter of the core clock, and start the program through its vector table. */
__attribute__((section(".boot2"), naked, used)) static void boot2(void) {
  __asm__ volatile(
      "ldr r3, 1f\n\t"
      "movs r1, #0\n\t"
      "str r1, [r3, #0x08]\n\t" /* SSIENR: off */
      "movs r1, #4\n\t"
      "str r1, [r3, #0x14]\n\t" /* BAUDR */
      "ldr r1, 2f\n\t"
      "str r1, [r3, #0x00]\n\t" /* CTRLR0: standard SPI, 32 bits a frame, EEPROM read */
      "movs r1, #0\n\t"
      "str r1, [r3, #0x04]\n\t" /* CTRLR1: one frame */
      "movs r0, #0xf4\n\t"
      "add r0, r3\n\t"
      "ldr r1, 3f\n\t"
      "str r1, [r0]\n\t" /* SPI_CTRLR0: command 0x03, 8 bits, 24 bits of address */
      "movs r1, #1\n\t"
      "str r1, [r3, #0x08]\n\t" /* SSIENR: on */
      "ldr r0, 4f\n\t"
      "ldr r1, 5f\n\t"
      "str r0, [r1]\n\t" /* VTOR */
      "ldmia r0!, {r1, r2}\n\t"
      "msr msp, r1\n\t"
      "bx r2\n\t"
      ".balign 4\n"
      "1: .word 0x18000000\n"
      "2: .word 0x001f0300\n"
      "3: .word 0x03000218\n"
      "4: .word 0x10000100\n"
      "5: .word 0xe000ed08\n"
      ".space 252 - 64\n"
      ".word 0x60410540\n"); /* CRC-32 of these 252 bytes, most significant bit first */
}

static void leave_reset(uint32_t blocks) {
  RESETS_RESET_CLEAR = blocks;
  while ((RESETS_RESET_DONE & blocks) != blocks) {
  }
}

void tvmt_board_start(void) {
  CLK_SYS_CTRL = 0; /* "Clocks": away from the PLL, which runs already when the program starts without a chip reset */
  while ((CLK_SYS_SELECTED & 1u) == 0u) {
  }
  XOSC_STARTUP = XOSC_STARTUP_1_MS; /* "Crystal oscillator" */
  XOSC_CTRL = XOSC_ENABLE_1_15_MHZ;
  while ((XOSC_STATUS & READY) == 0u) {
  }
  leave_reset(RESET_PLL_SYS | RESET_IO_BANK0 | RESET_PADS_BANK0);
  PLL_CS = 1; /* "PLL": reference divider */
  PLL_FBDIV = PLL_FEEDBACK;
  PLL_PWR = PLL_PWR_DSM_OFF | PLL_PWR_POSTDIV_OFF;
  while ((PLL_CS & READY) == 0u) {
  }
  PLL_PRIM = PLL_DIVIDERS;
  PLL_PWR = PLL_PWR_DSM_OFF;
  CLK_REF_CTRL = 2; /* "Clocks": the crystal */
  while ((CLK_REF_SELECTED & 4u) == 0u) {
  }
  CLK_SYS_CTRL = 1; /* its auxiliary source, which is the PLL */
  while ((CLK_SYS_SELECTED & 2u) == 0u) {
  }
  CLK_PERI_CTRL = CLK_PERI_ENABLE;
  GPIO_CTRL(MARK_PIN) = FUNCTION_SIO;
  SIO_OE_SET = 1u << MARK_PIN;
}

uint32_t tvmt_board_clock_hz(void) { return CORE_HZ; }

void tvmt_board_mark(int running) {
  if (running != 0) {
    SIO_OUT_SET = 1u << MARK_PIN;
  } else {
    SIO_OUT_CLR = 1u << MARK_PIN;
  }
}

int tvmt_uart_open(void) {
  leave_reset(RESET_UART0);
  UART_IBRD = DIVISOR_Q6 >> 6;
  UART_FBRD = DIVISOR_Q6 & 63u;
  UART_LCR_H = LCR_8_BITS_FIFOS; /* "UART": also takes the divisors over */
  UART_CR = CR_ENABLE_TX_RX;
  GPIO_CTRL(TX_PIN) = FUNCTION_UART;
  GPIO_CTRL(RX_PIN) = FUNCTION_UART;
  return 0;
}

int tvmt_uart_get(void) { return (UART_FR & FR_RX_EMPTY) == 0u ? (int)(UART_DR & 0xffu) : -1; }

void tvmt_uart_put(uint8_t byte) {
  while ((UART_FR & FR_TX_FULL) != 0u) {
  }
  UART_DR = byte;
}

void tvmt_uart_flush(void) {
  while ((UART_FR & FR_BUSY) != 0u) {
  }
}
