/* Transport by semihosting: two files in the working directory of the debugger or emulator.
 *
 * Source: Arm, "Semihosting for AArch32 and AArch64" (2.0), chapters 3 (the call: BKPT 0xAB on M-profile) and 5.
 */
#include "tvmt_transport.h"

enum {
  SYS_OPEN = 0x01,
  SYS_CLOSE = 0x02,
  SYS_WRITE0 = 0x04,
  SYS_WRITE = 0x05,
  SYS_READ = 0x06,
  SYS_EXIT_EXTENDED = 0x20,
  MODE_READ_BINARY = 1,
  MODE_WRITE_BINARY = 5,
  STOPPED_APPLICATION_EXIT = 0x20026
};

static uint32_t request;
static uint32_t response;

static uint32_t call(uint32_t operation, const void *parameters) {
  register uint32_t r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = parameters;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

/* A handle, or UINT32_MAX. The length is without the final zero. */
static uint32_t open_file(const char *name, uint32_t length, uint32_t mode) {
  const uint32_t parameters[3] = {(uint32_t)name, mode, length};
  return call(SYS_OPEN, parameters);
}

int tvmt_transport_open(void) {
  request = open_file(TVMT_REQUEST_FILE, sizeof TVMT_REQUEST_FILE - 1u, MODE_READ_BINARY);
  response = open_file(TVMT_RESPONSE_FILE, sizeof TVMT_RESPONSE_FILE - 1u, MODE_WRITE_BINARY);
  return request != UINT32_MAX && response != UINT32_MAX ? 0 : -1;
}

/* SYS_READ and SYS_WRITE answer with the number of bytes that they left over. */
static uint32_t transfer(uint32_t operation, uint32_t handle, uint32_t address, uint32_t bytes) {
  const uint32_t parameters[3] = {handle, address, bytes};
  return bytes == 0u ? 0u : call(operation, parameters);
}

/* QEMU hands on what read() returns, and answers with UINT32_MAX where that failed. */
int32_t tvmt_transport_read(uint8_t *to, uint32_t capacity) {
  const uint32_t left = transfer(SYS_READ, request, (uint32_t)to, capacity);
  return left <= capacity ? (int32_t)(capacity - left) : -1;
}

int tvmt_transport_write(void *context, const uint8_t *bytes, uint32_t count) {
  (void)context;
  return transfer(SYS_WRITE, response, (uint32_t)bytes, count) == 0u ? 0 : -1;
}

void tvmt_transport_log(const char *text) { (void)call(SYS_WRITE0, text); }

_Noreturn void tvmt_transport_exit(int status) {
  const uint32_t parameters[2] = {STOPPED_APPLICATION_EXIT, (uint32_t)status};
  (void)call(SYS_CLOSE, &response);
  for (;;) {
    (void)call(SYS_EXIT_EXTENDED, parameters);
  }
}
