/* Transport of a host: two files in the working directory, requests and answers. */
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

int32_t tvmt_transport_read(uint8_t *to, uint32_t capacity) {
  const size_t count = fread(to, 1, capacity, request);
  return ferror(request) ? -1 : (int32_t)count;
}

int tvmt_transport_write(void *context, const uint8_t *bytes, uint32_t count) {
  (void)context;
  return fwrite(bytes, 1, count, response) == count ? 0 : -1;
}

void tvmt_transport_log(const char *text) { (void)fputs(text, stderr); }

_Noreturn void tvmt_transport_exit(int status) {
  if (response != NULL && fclose(response) != 0) {
    (void)fputs("cannot complete " TVMT_RESPONSE_FILE "\n", stderr);
    status = status != 0 ? status : 1;
  }
  exit(status);
}
