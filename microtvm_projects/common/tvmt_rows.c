/* The last rows of a stream. */
#include "tvmt_rows.h"

#include <string.h>

void tvmt_rows_init(tvmt_rows *rows, int8_t *data, uint16_t capacity, uint16_t width, uint16_t group,
                    uint16_t stride) {
  const tvmt_rows empty = {data, capacity, width, group, stride, 0, 0, 0, capacity};
  *rows = empty;
}

void tvmt_rows_added(tvmt_rows *rows) {
  rows->place = (uint16_t)(rows->place + 1U == rows->capacity ? 0U : rows->place + 1U);
  rows->phase = (uint16_t)(rows->phase + 1U == rows->group ? 0U : rows->phase + 1U);
  rows->filled = (uint16_t)(rows->filled < rows->capacity ? rows->filled + 1U : rows->filled);
  rows->due = (uint16_t)(rows->due > 0U ? rows->due - 1U : 0U);
}

int32_t tvmt_rows_copy(tvmt_rows *rows, int8_t *out) {
  /* Rows at the start of a full ring may be the rest of a token that began before them. */
  const uint32_t skipped =
      rows->filled == rows->capacity && rows->phase != 0U ? (uint32_t)rows->group - rows->phase : 0U;
  const uint32_t count = rows->filled - rows->phase - skipped;
  uint32_t from = (uint32_t)rows->place + rows->capacity - rows->filled + skipped;
  for (uint32_t row = 0; row < count; row++) {
    from = from >= rows->capacity ? from - rows->capacity : from;
    memcpy(&out[(size_t)row * rows->width], &rows->data[(size_t)from * rows->width], rows->width);
    from++;
  }
  rows->due = rows->stride;
  return (int32_t)(count / rows->group);
}
