/* Which exercise is this? Windows of a six-axis sensor, named motion-sensor by an alias in the devicetree.
 *
 * The main thread samples at 50 Hz; inference runs in the work queue of tvmtiny, at a lower priority, so that it
 * delays no sample.
 */
#include <string.h>

#include <zephyr/drivers/sensor.h>
#include <zephyr/kernel.h>
#include <zephyr/sys/printk.h>

#include "motion_zephyr.h"
#include "tvmt_classify.h"

#define SAMPLE_MS 20
#define SAMPLES 128 /* of a window: the model's tokens are 4 samples each */
#define STRIDE 64   /* samples between windows */
#define AXES 6      /* acceleration in g, angular rate in rad/s, as in the training data */

BUILD_ASSERT(SAMPLES * AXES == MOTION_WINDOW_COUNT, "the model was compiled for other windows");

static const struct device *const sensor = DEVICE_DT_GET(DT_ALIAS(motion_sensor));

static int32_t window[SAMPLES][AXES]; /* Q16.16, oldest first */
static K_MUTEX_DEFINE(window_lock);

static void classify(struct k_work *work) {
  ARG_UNUSED(work);
  void *arena = tvmt_acquire(&motion_instance, K_FOREVER);
  if (arena == NULL) {
    printk("no arena\n");
    return;
  }
  k_mutex_lock(&window_lock, K_FOREVER);
  motion_quantize_window(&window[0][0], motion_window(arena), MOTION_MAX_TOKENS);
  k_mutex_unlock(&window_lock);
  if (tvmt_run(&motion_instance, MOTION_MAX_TOKENS) == MOTION_OK) {
    const tvmt_class found = tvmt_classify_s16(motion_logits(arena), MOTION_LOGITS_COUNT, MOTION_LOGITS_SCALE_Q32);
    printk("%s (%d.%d %%)\n", motion_labels[found.best], (int)found.confidence / 10, (int)found.confidence % 10);
  }
  tvmt_release(&motion_instance);
}

static K_WORK_DEFINE(classification, classify);

/* val1 + val2 / 10^6, in Q16.16 */
static int32_t q16(const struct sensor_value *value) {
  return (int32_t)(((int64_t)value->val1 * 1000000 + value->val2) * 65536 / 1000000);
}

static int read_sample(int32_t sample[AXES]) {
  struct sensor_value acceleration[3], rate[3];
  int status = sensor_sample_fetch(sensor);
  if (status == 0) {
    status = sensor_channel_get(sensor, SENSOR_CHAN_ACCEL_XYZ, acceleration);
  }
  if (status == 0) {
    status = sensor_channel_get(sensor, SENSOR_CHAN_GYRO_XYZ, rate);
  }
  for (int axis = 0; status == 0 && axis < 3; axis++) {
    sample[axis] = sensor_ms2_to_mg(&acceleration[axis]) * 65536 / 1000;
    sample[axis + 3] = q16(&rate[axis]);
  }
  return status;
}

/* Appends a sample; a full window starts a classification and then loses its oldest STRIDE samples. */
static void append(const int32_t sample[AXES]) {
  static uint32_t count;
  k_mutex_lock(&window_lock, K_FOREVER);
  if (count == SAMPLES) {
    memmove(window[0], window[STRIDE], sizeof window - STRIDE * sizeof window[0]);
    count = SAMPLES - STRIDE;
  }
  memcpy(window[count++], sample, sizeof window[0]);
  k_mutex_unlock(&window_lock);
  if (count == SAMPLES) {
    k_work_submit_to_queue(&tvmt_work_queue, &classification);
  }
}

int main(void) {
  struct k_timer tick;
  if (!device_is_ready(sensor)) {
    printk("%s is not ready\n", sensor->name);
    return 0;
  }
  k_timer_init(&tick, NULL, NULL);
  k_timer_start(&tick, K_NO_WAIT, K_MSEC(SAMPLE_MS));
  for (;;) {
    int32_t sample[AXES];
    k_timer_status_sync(&tick);
    const int status = read_sample(sample);
    if (status == 0) {
      append(sample);
    } else {
      printk("%s: error %d\n", sensor->name, status);
    }
  }
}
