// The intent classifier from C++: an object holds the arena for as long as it lives. Headers are those of C, so that
// Zephyr's minimal C++ library will do.
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <zephyr/sys/printk.h>

#include "intent_zephyr.h"
#include "tvmt_classify.h"

namespace {

class Arena {
 public:
  explicit Arena(const tvmt_instance &instance) : instance_(instance), bytes_(tvmt_acquire(&instance, K_FOREVER)) {}
  ~Arena() {
    if (bytes_ != nullptr) {
      tvmt_release(&instance_);
    }
  }
  Arena(const Arena &) = delete;
  Arena &operator=(const Arena &) = delete;

  void *bytes() const { return bytes_; }
  size_t size() const { return instance_.arena_bytes; }

 private:
  const tvmt_instance &instance_;
  void *bytes_;
};

const char *classify(const char *text) {
  Arena arena(intent_instance);
  if (intent_run_text(arena.bytes(), arena.size(), text, strlen(text)) != INTENT_OK) {
    return "error";
  }
  const int16_t *logits = intent_logits(arena.bytes());
  return intent_labels[tvmt_classify_s16(logits, INTENT_LOGITS_COUNT, INTENT_LOGITS_SCALE_Q32).best];
}

}  // namespace

int main() {
  printk("%s\n", classify("will it rain in Oslo tomorrow"));
  return 0;
}
