/* Weights are decoded once in an arena of one's own, and after each other owner in a shared one. */
#include <zephyr/ztest.h>

#include "tvmt_zephyr.h"

static int decoded, fails;

static int decode(void *arena, size_t arena_bytes) {
  ARG_UNUSED(arena);
  ARG_UNUSED(arena_bytes);
  decoded++;
  return fails;
}

static uint8_t memory[16];
static K_MUTEX_DEFINE(lock);
static const struct tvmt_instance *owner;
static const tvmt_model decoding = {.name = "decoding", .init = decode}, plain = {.name = "plain"};
static const struct tvmt_instance one = {&decoding, memory, sizeof memory, &lock, &owner};
static const struct tvmt_instance other = {&plain, memory, sizeof memory, &lock, &owner};

static bool turn(const struct tvmt_instance *instance) {
  const bool held = tvmt_acquire(instance, K_NO_WAIT) != NULL;
  if (held) {
    tvmt_release(instance);
  }
  return held;
}

ZTEST(reference, test_owners) {
  decoded = 0;
  zassert_true(turn(&one) && turn(&one));
  zassert_equal(decoded, 1, "its arena was its own");
  zassert_true(turn(&other) && turn(&one));
  zassert_equal(decoded, 2, "another had the arena");
  fails = -1;
  zassert_true(turn(&other));
  zassert_false(turn(&one), "nothing was decoded");
  zassert_equal(lock.lock_count, 0, "the arena is not held");
  fails = 0;
  zassert_true(turn(&one) && turn(&one));
  zassert_equal(decoded, 4, "once more after the failure");
}
