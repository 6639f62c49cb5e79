/* Registers for start-up code that runs on the host: cells of memory, in some of which bits are always set, as a
 * peripheral sets them when it is ready.
 */
#include <stdint.h>
#include <stdlib.h>

enum { CELLS = 128 };

static struct {
  uint32_t address, value, always;
} cells[CELLS];
static uint32_t n_cells;

static uint32_t find(uint32_t address) {
  for (uint32_t i = 0; i < n_cells; i++) {
    if (cells[i].address == address) {
      return i;
    }
  }
  if (n_cells == CELLS) {
    abort();
  }
  cells[n_cells].address = address;
  return n_cells++;
}

/* A register that must not be touched while others bits are set, and how often it was. */
static struct {
  uint32_t address, busy_address, busy_bits, touched;
} forbidden;

volatile uint32_t *fake_register(uint32_t address);
void fake_forbid(uint32_t address, uint32_t busy_address, uint32_t busy_bits);
uint32_t fake_touched(void);
void fake_always(uint32_t address, uint32_t bits);
uint32_t fake_value(uint32_t address);

volatile uint32_t *fake_register(uint32_t address) {
  const uint32_t i = find(address);
  cells[i].value |= cells[i].always;
  if (address == forbidden.address && (fake_value(forbidden.busy_address) & forbidden.busy_bits) != 0u) {
    forbidden.touched++;
  }
  return &cells[i].value;
}

void fake_always(uint32_t address, uint32_t bits) { cells[find(address)].always = bits; }

void fake_forbid(uint32_t address, uint32_t busy_address, uint32_t busy_bits) {
  forbidden.address = address;
  forbidden.busy_address = busy_address;
  forbidden.busy_bits = busy_bits;
  forbidden.touched = 0;
}

uint32_t fake_touched(void) { return forbidden.touched; }

uint32_t fake_value(uint32_t address) { return cells[find(address)].value; }
