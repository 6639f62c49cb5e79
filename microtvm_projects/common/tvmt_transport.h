/* What the harness needs from the place where it runs. A transport is one C file that defines the first group; a
 * project defines the second for its cores.
 */
#ifndef TVMT_TRANSPORT_H
#define TVMT_TRANSPORT_H

#include <stdint.h>

#include "tvmt_link.h"

#define TVMT_REQUEST_FILE "tvmt_request.bin"
#define TVMT_RESPONSE_FILE "tvmt_response.bin"

/* How the harness ends: the exit status of the process, or of the emulator. */
enum tvmt_exit {
  TVMT_EXIT_DONE = 0,
  TVMT_EXIT_OPEN = 90,  /* the transport could not be opened */
  TVMT_EXIT_READ = 92,  /* the requests ended early */
  TVMT_EXIT_WRITE = 93, /* an answer could not be written */
  TVMT_EXIT_ARENA = 95, /* the model wants a larger or more aligned arena than the harness has */
  TVMT_EXIT_FAULT = 100 /* plus the number of the Cortex-M exception, where it is known: 103 is a HardFault */
};

/* Opens both directions. Returns 0, or negative. */
int tvmt_transport_open(void);

/* Waits for bytes of requests, puts at most `capacity` of them to `to` and returns how many; 0 when no more will
 * come, negative when reading failed. */
int32_t tvmt_transport_read(uint8_t *to, uint32_t capacity);

/* Writes exactly `count` bytes of answers. Returns 0, or negative. */
int tvmt_transport_write(void *context, const uint8_t *bytes, uint32_t count);

/* Says `text`, zero-terminated, to a person; may be called before tvmt_transport_open. */
void tvmt_transport_log(const char *text);

/* Completes the answers and ends the program with `status` (enum tvmt_exit); where nothing can take a status it says
 * it, and the device starts again. */
_Noreturn void tvmt_transport_exit(int status);

/* Paints the stack below the caller's frame, down to its limit. */
void tvmt_stack_paint(void);

/* Bytes between `top`, an address in the caller's frame, and the deepest word changed since tvmt_stack_paint; 0
 * where that cannot be told; UINT32_MAX when the stack was used up to its limit. */
uint32_t tvmt_stack_peak(const void *top);

/* Starts the counter of cycles and says what it is and how many a second it counts; 0 where a second says nothing. */
enum tvmt_counter tvmt_counter_start(uint32_t *hertz);

/* Cycles since some moment. */
uint64_t tvmt_counter_read(void);

/* Sets a pin while a run lasts, for a power profiler or an oscilloscope, where the board has one for that. */
void tvmt_mark(int running);

#endif
