/* Samples of a model with the bytes that it must give. */
#ifndef SAMPLES_H
#define SAMPLES_H

#include <stdint.h>

struct sample {
  int32_t n_tokens;
  const uint8_t *const *inputs;  /* in the order of the model's inputs, each as it lies in the arena */
  const uint8_t *const *outputs; /* likewise */
};

extern const char reference_model[];
extern const struct sample reference_samples[];
extern const uint32_t reference_count;

#endif
