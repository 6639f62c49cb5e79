/* Transport of a host: standard input and output are the line, for instance a pseudo terminal or a socket. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tvmt_transport.h"

int tvmt_transport_open(void) { return 0; }

int32_t tvmt_transport_read(uint8_t *to, uint32_t capacity) {
  ssize_t count;
  do {
    count = read(STDIN_FILENO, to, capacity);
  } while (count < 0 && errno == EINTR);
  return (int32_t)count;
}

int tvmt_transport_write(void *context, const uint8_t *bytes, uint32_t count) {
  (void)context;
  while (count > 0u) {
    const ssize_t done = write(STDOUT_FILENO, bytes, count);
    if (done < 0 && errno != EINTR) {
      return -1;
    }
    bytes += done > 0 ? done : 0;
    count -= done > 0 ? (uint32_t)done : 0u;
  }
  return 0;
}

void tvmt_transport_log(const char *text) { (void)fputs(text, stderr); }

_Noreturn void tvmt_transport_exit(int status) { exit(status); }
