/* The last rows of a stream of features, for a model that takes some of them at a time: windows that overlap, or one
 * utterance. C11 and C++. */
#ifndef TVMT_ROWS_H
#define TVMT_ROWS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Contents are private. */
typedef struct {
  int8_t *data;      /* [capacity][width], a ring */
  uint16_t capacity; /* rows of a full window, a multiple of `group` */
  uint16_t width;    /* bytes of a row */
  uint16_t group;    /* rows of a token */
  uint16_t stride;   /* rows from a full window to the next, a multiple of `group` */
  uint16_t place;    /* of the next row */
  uint16_t filled;   /* rows that are kept */
  uint16_t phase;    /* rows of the token that is not complete */
  uint16_t due;      /* rows until the next full window */
} tvmt_rows;

/* Begin a stream. `data` has capacity * width bytes. */
void tvmt_rows_init(tvmt_rows *rows, int8_t *data, uint16_t capacity, uint16_t width, uint16_t group, uint16_t stride);

/* Where the next row goes; tvmt_rows_added says that it is there. */
static inline int8_t *tvmt_rows_next(const tvmt_rows *rows) { return &rows->data[(size_t)rows->place * rows->width]; }
void tvmt_rows_added(tvmt_rows *rows);

/* Whether a full window is due. */
static inline int tvmt_rows_ready(const tvmt_rows *rows) { return rows->due == 0U; }

/* Copy the last rows, the oldest first, as many as a window takes or as there are, in whole tokens; the next window is
 * due `stride` rows from here. Returns the number of tokens. */
int32_t tvmt_rows_copy(tvmt_rows *rows, int8_t *out);

#ifdef __cplusplus
}
#endif

#endif
