/* What a firmware says by itself on a serial line, in frames that a host tells from answers. For the transports. */
#ifndef TVMT_SAY_H
#define TVMT_SAY_H

#include "tvmt_transport.h"

#define TVMT_SAY_BYTES 64u

/* Sends at most TVMT_SAY_BYTES bytes of `text`. */
static inline void tvmt_say(const char *text) {
  static uint8_t frame[TVMT_SAY_BYTES + TVMT_FRAME_EXTRA_BYTES]; /* in a fault, little may be left of the stack */
  const uint8_t end = 0; /* of an answer that was cut short */
  uint32_t count = 0;
  while (text[count] != '\0' && count < TVMT_SAY_BYTES) {
    frame[TVMT_FRAME_HEADER_BYTES + count] = (uint8_t)text[count];
    count++;
  }
  for (uint32_t i = 0; i < TVMT_FRAME_HEADER_BYTES; i++) {
    frame[i] = 0;
  }
  frame[TVMT_FRAME_KIND_AT] = TVMT_LINK_LOG;
  (void)tvmt_transport_write(0, &end, 1);
  (void)tvmt_frame_send(frame, count, tvmt_transport_write, 0);
}

/* Sends the last words of a firmware (tvmtiny/link/client.py waits for them): `status` is an enum tvmt_exit. */
static inline void tvmt_say_exit(int status) {
  char text[] = "exit 000\n";
  for (uint32_t i = 0, rest = (uint32_t)status; i < 3u; i++, rest /= 10u) {
    text[7u - i] = (char)('0' + rest % 10u);
  }
  tvmt_say(text);
}

#endif
