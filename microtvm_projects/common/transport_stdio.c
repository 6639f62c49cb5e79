/* Transport of a host: two files in the working directory. */
#include <stdio.h>
#include <stdlib.h>

#include "tvmt_transport.h"

static FILE *request;
static FILE *response;

int tvmt_transport_open(void) {
  request = fopen(TVMT_REQUEST_FILE, "rb");
  response = fopen(TVMT_RESPONSE_FILE, "wb");
  return request != NULL && response != NULL ? 0 : -1;
}

int tvmt_transport_read(void *to, uint32_t bytes) {
  return fread(to, 1, bytes, request) == bytes ? 0 : -1;
}

int tvmt_transport_write(const void *from, uint32_t bytes) {
  return fwrite(from, 1, bytes, response) == bytes ? 0 : -1;
}

void tvmt_transport_log(const char *text) { (void)fputs(text, stderr); }

_Noreturn void tvmt_transport_exit(int status) {
  if (response != NULL && fclose(response) != 0) {
    (void)fputs("cannot complete " TVMT_RESPONSE_FILE "\n", stderr);
    status = status != 0 ? status : 1;
  }
  exit(status);
}
