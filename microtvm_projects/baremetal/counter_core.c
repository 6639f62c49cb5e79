/* Cycles by the core's cycle counter (DWT), or by SysTick where it has none, extended to 64 bits.
 *
 * SysTick counts down 24 bits of the core clock and interrupts at its end; that interrupt also looks at the cycle
 * counter often enough to see its 32 bits wrap. It costs about 30 cycles in 16.7 million.
 *
 * Sources: Armv7-M Architecture Reference Manual, "The Data Watchpoint and Trace unit", "The system timer, SysTick",
 * "Debug Exception and Monitor Control Register"; a Cortex-M7's DWT has a software lock besides (LAR).
 */
#include "tvmt_board.h"
#include "tvmt_transport.h"

#define SYST_CSR TVMT_REGISTER(0xe000e010u)
#define SYST_RVR TVMT_REGISTER(0xe000e014u)
#define SYST_CVR TVMT_REGISTER(0xe000e018u)
#define DEMCR TVMT_REGISTER(0xe000edfcu)
#define DWT_CTRL TVMT_REGISTER(0xe0001000u)
#define DWT_CYCCNT TVMT_REGISTER(0xe0001004u)
#define DWT_LAR TVMT_REGISTER(0xe0001fb0u)

#define SYST_ENABLE_CORE_CLOCK_INTERRUPT 7u
#define SYST_LAST 0xffffffu
#define DEMCR_TRCENA (1u << 24)
#define DWT_CYCCNTENA 1u
#define DWT_UNLOCK 0xc5acce55u

#if __ARM_ARCH >= 7 && !defined(__ARM_ARCH_8M_BASE__)
#define MAY_HAVE_DWT 1
#else
#define MAY_HAVE_DWT 0
#endif

static volatile uint32_t systick_wraps;
static volatile uint32_t dwt_wraps;
static volatile uint32_t dwt_last;
static int has_dwt;

void tvmt_systick(void);

#if MAY_HAVE_DWT
/* Returns whether it counts: an emulated one does not. */
static int start_dwt(void) {
  DEMCR |= DEMCR_TRCENA;
  DWT_LAR = DWT_UNLOCK;
  DWT_CYCCNT = 0;
  DWT_CTRL |= DWT_CYCCNTENA;
  const uint32_t before = DWT_CYCCNT;
  __asm__ volatile("nop\n\tnop\n\tnop\n\tnop\n\tisb" ::: "memory");
  return DWT_CYCCNT != before;
}

static uint64_t read_dwt(void) {
  uint32_t mask;
  __asm__ volatile("mrs %0, primask\n\tcpsid i" : "=r"(mask)::"memory");
  const uint32_t now = DWT_CYCCNT;
  dwt_wraps += now < dwt_last;
  dwt_last = now;
  const uint64_t cycles = (uint64_t)dwt_wraps << 32 | now;
  __asm__ volatile("msr primask, %0" ::"r"(mask) : "memory");
  return cycles;
}
#else
static int start_dwt(void) { return 0; }
static uint64_t read_dwt(void) { return 0; }
#endif

/* The handler of SysTick. */
void tvmt_systick(void) {
  systick_wraps++;
  if (has_dwt) {
    (void)read_dwt();
  }
}

enum tvmt_counter tvmt_counter_start(uint32_t *hertz) {
  has_dwt = start_dwt();
  SYST_RVR = SYST_LAST;
  SYST_CVR = 0;
  SYST_CSR = SYST_ENABLE_CORE_CLOCK_INTERRUPT;
  *hertz = tvmt_board_clock_hz();
  if (*hertz == 0u) {
    return TVMT_COUNTER_EMULATED;
  }
  return has_dwt ? TVMT_COUNTER_DWT : TVMT_COUNTER_SYSTICK;
}

uint64_t tvmt_counter_read(void) {
  if (has_dwt) {
    return read_dwt();
  }
  uint32_t wraps, value;
  do { /* again if the interrupt came between */
    wraps = systick_wraps;
    value = SYST_CVR;
    __asm__ volatile("isb" ::: "memory");
  } while (wraps != systick_wraps);
  return ((uint64_t)wraps << 24) + (SYST_LAST - value);
}

void tvmt_mark(int running) { tvmt_board_mark(running); }
