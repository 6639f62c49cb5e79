/* From reset to main, for every Cortex-M core: vector table, memory, coprocessors, and faults that end the program
 * with a message instead of hanging it. Symbols that start with two underscores come from linker.ld.j2.
 *
 * Sources: Arm v6-M, v7-M and v8-M architecture reference manuals, "Exception model" and "System Control Block".
 */
#include <stdbool.h>
#include <stdint.h>

#include "tvmt_board.h"
#include "tvmt_transport.h"

#define SCB_VTOR TVMT_REGISTER(0xe000ed08u)
#define SCB_CCR TVMT_REGISTER(0xe000ed14u)
#define SCB_SHCSR TVMT_REGISTER(0xe000ed24u)
#define SCB_CFSR TVMT_REGISTER(0xe000ed28u)
#define SCB_BFAR TVMT_REGISTER(0xe000ed38u)
#define SCB_CPACR TVMT_REGISTER(0xe000ed88u)

#define CCR_LOB (1u << 19)
#define SHCSR_MEMFAULTENA (1u << 16)
#define SHCSR_BUSFAULTENA (1u << 17)
#define SHCSR_USGFAULTENA (1u << 18)
#define SHCSR_SECUREFAULTENA (1u << 19)
#define CFSR_STKOF (1u << 20)
#define CPACR_CP10_CP11_FULL (0xfu << 20)

/* ARMv7-M and ARMv8-M Mainline: configurable faults, VTOR, CPACR. ARMv6-M and ARMv8-M Baseline lack them. */
#if __ARM_ARCH >= 7 && !defined(__ARM_ARCH_8M_BASE__)
#define HAS_CONFIGURABLE_FAULTS 1
#else
#define HAS_CONFIGURABLE_FAULTS 0
#endif

/* The least stack that printing a fault needs; the program's own may be what overflowed. */
#define FAULT_STACK_WORDS 80u

/* r0 to r3, r12, lr, pc, xpsr */
#define FRAME_WORDS 8

typedef void (*handler)(void);

extern uint32_t __stack_limit[], __stack_top[];
extern uint32_t __data_start[], __data_end[];
extern const uint32_t __data_load[];
extern uint32_t __code_start[], __code_end[];
extern const uint32_t __code_load[];
extern uint32_t __bss_start[], __bss_end[];
extern const handler __vectors[];

extern int main(void);
_Noreturn void tvmt_reset(void);
void tvmt_fault(void);
_Noreturn void tvmt_report_fault(const uint32_t *frame, uint32_t exception);

uint32_t tvmt_fault_stack[FAULT_STACK_WORDS] __attribute__((aligned(8)));

/* Of the interrupts, only SysTick's is ever enabled, by counter_core.c. */
__attribute__((weak, alias("tvmt_fault"))) void tvmt_systick(void);

/* Entry 0 is the initial stack pointer. The sixteen entries of the core suffice. */
__attribute__((section(".vectors"), used)) static const handler vectors[16] = {
    (handler)(uintptr_t)__stack_top, tvmt_reset, tvmt_fault, tvmt_fault, tvmt_fault, tvmt_fault,
    tvmt_fault, tvmt_fault, tvmt_fault, tvmt_fault, tvmt_fault, tvmt_fault,
    tvmt_fault, tvmt_fault, tvmt_fault, tvmt_systick,
};

/* What is linked where it is loaded lies in flash and stays there. */
static void copy(uint32_t *to, const uint32_t *end, const uint32_t *from) {
  if (to == from) {
    return;
  }
  while (to < end) {
    *to++ = *from++;
  }
}

static void enable_core_features(void) {
#if HAS_CONFIGURABLE_FAULTS
  SCB_VTOR = (uint32_t)__vectors; /* a boot loader may have left its own */
  SCB_SHCSR |= SHCSR_MEMFAULTENA | SHCSR_BUSFAULTENA | SHCSR_USGFAULTENA;
#if __ARM_ARCH >= 8
  SCB_SHCSR |= SHCSR_SECUREFAULTENA;
  __asm__ volatile("msr msplim, %0" : : "r"(__stack_limit));
#endif
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
  SCB_CPACR |= CPACR_CP10_CP11_FULL;
#endif
#if defined(__ARM_FEATURE_MVE)
  SCB_CCR |= CCR_LOB; /* Armv8.1-M: without its cache, the end of a low-overhead loop costs a branch each time */
#endif
  __asm__ volatile("dsb\n\tisb" ::: "memory");
#endif
}

_Noreturn void tvmt_reset(void) {
  enable_core_features();
  tvmt_board_start();
  copy(__data_start, __data_end, __data_load);
  copy(__code_start, __code_end, __code_load);
  for (uint32_t *word = __bss_start; word < __bss_end; word++) {
    *word = 0;
  }
  __asm__ volatile("dsb\n\tisb" ::: "memory");
  tvmt_transport_exit(main());
}

/* The frame that the core has stacked is at MSP; report it from a stack of our own. */
__attribute__((naked)) void tvmt_fault(void) {
  __asm__ volatile(
      "mrs r0, msp\n\t"
      "mrs r1, ipsr\n\t"
#if __ARM_ARCH >= 8 && HAS_CONFIGURABLE_FAULTS
      "movs r2, #0\n\t"
      "msr msplim, r2\n\t"
#endif
      "ldr r2, 1f\n\t"
      "mov sp, r2\n\t"
      "ldr r2, 2f\n\t"
      "bx r2\n\t"
      ".balign 4\n"
      "1: .word tvmt_fault_stack + %c0\n"
      "2: .word tvmt_report_fault\n"
      :
      : "i"(FAULT_STACK_WORDS * 4u));
}

static void log_hex(const char *label, uint32_t value) {
  char text[12];
  for (uint32_t i = 0; i < 8u; i++) {
    text[2u + i] = "0123456789abcdef"[(value >> (28u - 4u * i)) & 15u];
  }
  text[0] = '0';
  text[1] = 'x';
  text[10] = '\0';
  tvmt_transport_log(label);
  tvmt_transport_log(text);
}

static const char *fault_name(uint32_t exception) {
  static const char *const names[] = {"NMI", "HardFault", "MemManage", "BusFault", "UsageFault", "SecureFault"};
  return exception >= 2u && exception <= 7u ? names[exception - 2u] : "unexpected exception";
}

/* Whether there is no intact frame: where the core has a stack limit it says so (CFSR.STKOF), else `frame` does. */
static bool stack_overflowed(const uint32_t *frame) {
#if __ARM_ARCH >= 8 && HAS_CONFIGURABLE_FAULTS
  if ((SCB_CFSR & CFSR_STKOF) != 0u) {
    return true;
  }
#endif
  return frame < __stack_limit || frame + FRAME_WORDS > __stack_top;
}

_Noreturn void tvmt_report_fault(const uint32_t *frame, uint32_t exception) {
  tvmt_transport_log("tvmtiny firmware: ");
  tvmt_transport_log(fault_name(exception));
  if (!stack_overflowed(frame)) {
    log_hex(" at pc ", frame[6]);
    log_hex(", lr ", frame[5]);
  } else {
    log_hex(", stack overflow: sp ", (uint32_t)frame);
    log_hex(", limit ", (uint32_t)__stack_limit);
  }
#if HAS_CONFIGURABLE_FAULTS
  log_hex(", cfsr ", SCB_CFSR);
  log_hex(", bfar ", SCB_BFAR);
#endif
  tvmt_transport_log("\n");
  tvmt_transport_exit((int)(TVMT_EXIT_FAULT + (exception & 63u)));
}
