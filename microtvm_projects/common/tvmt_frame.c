/* See tvmt_frame.h. */
#include "tvmt_frame.h"

#define LONGEST_RUN 254u

uint32_t tvmt_crc32(uint32_t crc, const uint8_t *bytes, uint32_t count) {
  /* Of the reflected polynomial 0xedb88320, for four bits at a time: 64 bytes of flash instead of 1,024. */
  static const uint32_t nibble[16] = {0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u,
                                      0x4db26158u, 0x5005713cu, 0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu,
                                      0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu};
  crc = ~crc;
  for (uint32_t i = 0; i < count; i++) {
    crc ^= bytes[i];
    crc = (crc >> 4) ^ nibble[crc & 15u];
    crc = (crc >> 4) ^ nibble[crc & 15u];
  }
  return ~crc;
}

static void restart(tvmt_frame_reader *reader) {
  reader->count = 0;
  reader->run = 0;
  reader->zero = 0;
}

void tvmt_frame_reader_init(tvmt_frame_reader *reader, uint8_t *memory, uint32_t capacity) {
  reader->frame = memory;
  reader->capacity = capacity;
  restart(reader);
}

static void append(tvmt_frame_reader *reader, uint8_t byte) {
  if (reader->count < reader->capacity) {
    reader->frame[reader->count] = byte;
  }
  if (reader->count <= reader->capacity) {
    reader->count++;
  }
}

static uint32_t finish(tvmt_frame_reader *reader) {
  const uint32_t count = reader->count;
  const int whole = reader->run == 0u && count >= TVMT_FRAME_EXTRA_BYTES && count <= reader->capacity;
  restart(reader);
  if (!whole) {
    return 0;
  }
  const uint32_t covered = count - 4u;
  return tvmt_crc32(0, reader->frame, covered) == tvmt_get_u32(&reader->frame[covered]) ? count : 0u;
}

uint32_t tvmt_frame_receive(tvmt_frame_reader *reader, uint8_t byte) {
  if (byte == 0u) {
    return finish(reader);
  }
  if (reader->run != 0u) {
    append(reader, byte);
    reader->run--;
    return 0;
  }
  if (reader->zero != 0u) {
    append(reader, 0);
  }
  reader->run = (uint8_t)(byte - 1u);
  reader->zero = byte <= LONGEST_RUN;
  return 0;
}

/* Writes `count` bytes without a zero and their code; `code` is 255 where no zero follows a full run. */
static int write_run(const uint8_t *bytes, uint32_t count, tvmt_frame_write write, void *context) {
  const uint8_t code = (uint8_t)(count + 1u);
  const int failed = write(context, &code, 1);
  return failed != 0 || count == 0u ? failed : write(context, bytes, count);
}

static int write_stuffed(const uint8_t *bytes, uint32_t count, tvmt_frame_write write, void *context) {
  static const uint8_t end = 0;
  uint32_t start = 0;
  int failed = 0;
  while (failed == 0 && start <= count) {
    uint32_t run = 0;
    while (run < LONGEST_RUN && start + run < count && bytes[start + run] != 0u) {
      run++;
    }
    failed = write_run(&bytes[start], run, write, context);
    start += run < LONGEST_RUN ? run + 1u : run;
  }
  return failed != 0 ? failed : write(context, &end, 1);
}

int tvmt_frame_send(uint8_t *frame, uint32_t payload_bytes, tvmt_frame_write write, void *context) {
  const uint32_t covered = TVMT_FRAME_HEADER_BYTES + payload_bytes;
  frame[TVMT_FRAME_VERSION_AT] = (uint8_t)TVMT_FRAME_VERSION;
  tvmt_put_u32(&frame[covered], tvmt_crc32(0, frame, covered));
  return write_stuffed(frame, covered + 4u, write, context);
}
