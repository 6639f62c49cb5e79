/* What the harness needs from the place where it runs. A transport is one C file that defines the first group; a
 * project defines the second for its cores.
 */
#ifndef TVMT_TRANSPORT_H
#define TVMT_TRANSPORT_H

#include <stdint.h>

#define TVMT_REQUEST_FILE "tvmt_request.bin"
#define TVMT_RESPONSE_FILE "tvmt_response.bin"

/* Opens both directions. Returns 0, or negative. */
int tvmt_transport_open(void);

/* Reads exactly `bytes` bytes of the request to `to`. Returns 0, or negative when it ended before. */
int tvmt_transport_read(void *to, uint32_t bytes);

/* Writes exactly `bytes` bytes to the response. Returns 0, or negative. */
int tvmt_transport_write(const void *from, uint32_t bytes);

/* Prints `text`, zero-terminated, for a person; may be called before tvmt_transport_open. */
void tvmt_transport_log(const char *text);

/* Completes the response and ends the program with `status` (enum tvmt_exit). */
_Noreturn void tvmt_transport_exit(int status);

/* Paints the stack below the caller's frame, down to its limit. */
void tvmt_stack_paint(void);

/* Bytes between `top`, an address in the caller's frame, and the deepest word changed since tvmt_stack_paint; 0
 * where that cannot be told; UINT32_MAX when the stack was used up to its limit. */
uint32_t tvmt_stack_peak(const void *top);

#endif
