/* Stands in for a QEMU with version 2 of the plugin API (QEMU 9 and later): loads the plugin named by argv[1] as QEMU
 * does and plays it a program of four blocks: begin, a loop body entered five times, end; twice. Prints nothing;
 * leaves the plugin's status.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define EXPORT __attribute__((visibility("default")))
typedef struct { uint64_t *score; size_t offset; } u64;
struct insn { uint64_t address; void (*callback)(unsigned, void *); void *data; };
struct tb { size_t n; struct insn insns[4]; u64 counters[4]; uint64_t amounts[4]; size_t n_counters; struct insn entry; };

static struct tb program[3] = {{.n = 1, .insns = {{.address = 0x100}}},
                               {.n = 3, .insns = {{.address = 0x200}, {.address = 0x202}, {.address = 0x204}}},
                               {.n = 2, .insns = {{.address = 0x300}, {.address = 0x302}}}};
static void (*translate)(uint64_t, struct tb *);
static void (*at_exit)(uint64_t, void *);

EXPORT uint64_t *qemu_plugin_scoreboard_new(size_t bytes) { return calloc(1, bytes); }
EXPORT uint64_t qemu_plugin_u64_sum(u64 counter) { return *counter.score; }
EXPORT void qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(struct tb *tb, int op, u64 counter, uint64_t amount) {
  (void)op;
  tb->counters[tb->n_counters] = counter;
  tb->amounts[tb->n_counters++] = amount;
}
EXPORT void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*f)(uint64_t, struct tb *)) { (void)id; translate = f; }
EXPORT void qemu_plugin_register_atexit_cb(uint64_t id, void (*f)(uint64_t, void *), void *data) { (void)id; (void)data; at_exit = f; }
EXPORT void qemu_plugin_register_vcpu_insn_exec_cb(struct insn *insn, void (*f)(unsigned, void *), int flags, void *data) {
  (void)flags;
  insn->callback = f;
  insn->data = data;
}
EXPORT void qemu_plugin_register_vcpu_tb_exec_cb(struct tb *tb, void (*f)(unsigned, void *), int flags, void *data) {
  qemu_plugin_register_vcpu_insn_exec_cb(&tb->entry, f, flags, data);
}
EXPORT size_t qemu_plugin_tb_n_insns(const struct tb *tb) { return tb->n; }
EXPORT uint64_t qemu_plugin_tb_vaddr(const struct tb *tb) { return tb->insns[0].address; }
EXPORT struct insn *qemu_plugin_tb_get_insn(struct tb *tb, size_t index) { return &tb->insns[index]; }
EXPORT uint64_t qemu_plugin_insn_vaddr(const struct insn *insn) { return insn->address; }
EXPORT size_t qemu_plugin_insn_size(struct insn *insn) { (void)insn; return 2; }
EXPORT void qemu_plugin_outs(const char *text) { fputs(text, stderr); }

static void execute(struct tb *tb) {
  for (size_t i = 0; i < tb->n_counters; i++) {
    *tb->counters[i].score += tb->amounts[i];
  }
  if (tb->entry.callback) {
    tb->entry.callback(0, tb->entry.data);
  }
  for (size_t i = 0; i < tb->n; i++) {
    if (tb->insns[i].callback) {
      tb->insns[i].callback(0, tb->insns[i].data);
    }
  }
}

int main(int argc, char **argv) {
  void *plugin = dlopen(argv[1], RTLD_NOW);
  if (!plugin) {
    fputs(dlerror(), stderr);
    return 2;
  }
  if (*(int *)dlsym(plugin, "qemu_plugin_version") != 2) {
    return 3;
  }
  int (*install)(uint64_t, const void *, int, char **);
  *(void **)&install = dlsym(plugin, "qemu_plugin_install");
  const int status = install(1, NULL, argc - 2, argv + 2);
  if (status != 0) {
    return status;
  }
  for (int i = 0; i < 3; i++) {
    translate(1, &program[i]);
  }
  execute(&program[1]);
  for (int run = 0; run < 2; run++) {
    execute(&program[0]);
    for (int i = 0; i < 5 + run; i++) {
      execute(&program[1]);
    }
    execute(&program[2]);
  }
  at_exit(1, NULL);
  return 0;
}
