/* Sensor front end on the device: raw 16-bit samples of several channels to the int8 rows of a model's input, in windows
 * that overlap. Offset, gain and the input's scale are one multiplication a channel (tvmt_scale_each). C11 and C++. */
#ifndef TVMT_SENSOR_H
#define TVMT_SENSOR_H

#include "tvmt_rows.h"
#include "tvmt_scale.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The next samples, up to the one that completes a window.
 *   raw    [count][channels]
 * Returns how many samples were taken: call again with the rest. */
size_t tvmt_sensor_push(const tvmt_scale_rows *scale, tvmt_rows *rows, const int16_t *raw, size_t count);

#ifdef __cplusplus
}
#endif

#endif
