/* Caches of a Cortex-M7: Cortex-M7 Devices Generic User Guide (DUI 0646), "Cache maintenance operations";
 * the example there invalidates the data cache by set and way as here.
 *
 * NOT RUN ON HARDWARE: written from the manual; that it links is tested.
 */
#ifndef TVMT_CORTEX_M7_CACHES_H
#define TVMT_CORTEX_M7_CACHES_H

#include "tvmt_board.h"

#define SCB_CCR TVMT_REGISTER(0xe000ed14u)
#define SCB_CCSIDR TVMT_REGISTER(0xe000ed80u)
#define SCB_CSSELR TVMT_REGISTER(0xe000ed84u)
#define SCB_ICIALLU TVMT_REGISTER(0xe000ef50u)
#define SCB_DCISW TVMT_REGISTER(0xe000ef60u)

#define CCR_DC (1u << 16)
#define CCR_IC (1u << 17)
#define DCISW_SET_SHIFT 5u  /* lines of 32 bytes */
#define DCISW_WAY_SHIFT 30u /* four ways */

static inline void tvmt_caches_on(void) {
  __asm__ volatile("dsb\n\tisb" ::: "memory");
  SCB_ICIALLU = 0;
  __asm__ volatile("dsb\n\tisb" ::: "memory");
  SCB_CCR |= CCR_IC;
  SCB_CSSELR = 0; /* the data cache of level 1 */
  __asm__ volatile("dsb" ::: "memory");
  const uint32_t sizes = SCB_CCSIDR, last_set = (sizes >> 13) & 0x7fffu, last_way = (sizes >> 3) & 0x3ffu;
  for (uint32_t set = 0; set <= last_set; set++) {
    for (uint32_t way = 0; way <= last_way; way++) {
      SCB_DCISW = way << DCISW_WAY_SHIFT | set << DCISW_SET_SHIFT;
    }
  }
  __asm__ volatile("dsb" ::: "memory");
  SCB_CCR |= CCR_DC;
  __asm__ volatile("dsb\n\tisb" ::: "memory");
}

#endif
