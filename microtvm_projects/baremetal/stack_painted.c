/* Peak of the stack: paint what is free, look later how much of it is still painted. */
#include "tvmt_transport.h"

#define PAINT 0x5ac3a53cu

extern uint32_t __stack_limit[], __stack_top[];

/* In assembly because a compiler may store registers below the stack pointer that C code has just read. */
__attribute__((naked)) void tvmt_stack_paint(void) {
  __asm__ volatile(
      "ldr r0, 3f\n\t"
      "ldr r1, 4f\n\t"
      "mov r2, sp\n"
      "1:\n\t"
      "cmp r0, r2\n\t"
      "bhs 2f\n\t"
      "stmia r0!, {r1}\n\t"
      "b 1b\n"
      "2:\n\t"
      "bx lr\n\t"
      ".balign 4\n"
      "3: .word __stack_limit\n"
      "4: .word %c0\n"
      :
      : "i"(PAINT));
}

uint32_t tvmt_stack_peak(const void *top) {
  const volatile uint32_t *word = __stack_limit;
  while (word < __stack_top && *word == PAINT) {
    word++;
  }
  return word == __stack_limit ? UINT32_MAX : (uint32_t)top - (uint32_t)word;
}
