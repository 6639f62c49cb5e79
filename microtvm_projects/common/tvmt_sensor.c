/* Raw samples to rows. */
#include "tvmt_sensor.h"

size_t tvmt_sensor_push(const tvmt_scale_rows *scale, tvmt_rows *rows, const int16_t *raw, size_t count) {
  size_t taken = 0;
  while (taken < count) {
    tvmt_scale_each(scale, rows->phase, &raw[taken * scale->values], tvmt_rows_next(rows));
    tvmt_rows_added(rows);
    taken++;
    if (tvmt_rows_ready(rows)) {
      break;
    }
  }
  return taken;
}
