/* Frames on a line of bytes that may lose, change, double or invent some: a UART, a pipe, a file.
 *
 *   line   COBS(frame) 0 COBS(frame) 0 ...        a zero may also stand before a frame, and is otherwise ignored
 *   frame  version, kind      a byte each
 *          sequence           16 bits: an answer repeats that of its request
 *          session            32 bits
 *          payload            0 to capacity - TVMT_FRAME_EXTRA_BYTES bytes
 *          CRC-32             of all before it
 *
 * Words are little endian. Consistent overhead byte stuffing (Cheshire and Baker, 1999) leaves no zero inside a frame:
 * a receiver that has lost its place finds it at the next zero. The CRC is that of IEEE 802.3 and zlib. The place of
 * version and CRC is the same in every version, so that two sides can tell each other which one they speak.
 *
 * All memory is the caller's. C11 and C++. The Python twin is tvmtiny/link/frames.py: change both together.
 */
#ifndef TVMT_FRAME_H
#define TVMT_FRAME_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TVMT_FRAME_VERSION 2u
#define TVMT_FRAME_HEADER_BYTES 8u
#define TVMT_FRAME_EXTRA_BYTES 12u /* header and CRC */

enum { TVMT_FRAME_VERSION_AT = 0, TVMT_FRAME_KIND_AT = 1, TVMT_FRAME_SEQUENCE_AT = 2, TVMT_FRAME_SESSION_AT = 4 };

/* Puts bytes on the line; returns 0, or negative when it is gone. */
typedef int (*tvmt_frame_write)(void *context, const uint8_t *bytes, uint32_t count);

/* Finds frames in what arrives. */
typedef struct {
  uint8_t *frame;    /* the caller's memory: the frame that is being received */
  uint32_t capacity; /* bytes of it, at least TVMT_FRAME_EXTRA_BYTES */
  uint32_t count;    /* bytes received of the frame; more than capacity when it does not fit */
  uint8_t run;       /* bytes until the next code of COBS */
  uint8_t zero;      /* 1: the run that ends now stands for a zero behind it */
} tvmt_frame_reader;

void tvmt_frame_reader_init(tvmt_frame_reader *reader, uint8_t *memory, uint32_t capacity);

/* Takes the next byte of the line. Returns the size of a frame whose CRC is right, header and CRC included, when the
 * byte completes one, else 0. The frame stays until the next call; its version has not been looked at. */
uint32_t tvmt_frame_receive(tvmt_frame_reader *reader, uint8_t byte);

/* Whether a frame has begun and not ended. */
static inline int tvmt_frame_pending(const tvmt_frame_reader *reader) { return reader->count != 0u || reader->run != 0u; }

/* Completes the frame in `frame` (header but for the version, and payload) with version and CRC, for which it has
 * room, and writes it. Returns what `write` returned. */
int tvmt_frame_send(uint8_t *frame, uint32_t payload_bytes, tvmt_frame_write write, void *context);

/* Continues a CRC-32; it begins with 0. */
uint32_t tvmt_crc32(uint32_t crc, const uint8_t *bytes, uint32_t count);

static inline void tvmt_put_u32(uint8_t *to, uint32_t value) {
  for (uint32_t i = 0; i < 4u; i++) {
    to[i] = (uint8_t)(value >> (8u * i));
  }
}

static inline uint32_t tvmt_get_u32(const uint8_t *from) {
  return from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

#ifdef __cplusplus
}
#endif

#endif
