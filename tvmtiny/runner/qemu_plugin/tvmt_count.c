/* QEMU TCG plugin: exact number of guest instructions between two functions of the firmware.
 *
 *   -plugin tvmt_count.so,begin=0xADDRESS,end=0xADDRESS,out=FILE[,blocks=on[,phase=0xADDRESS]...]
 *
 * A measurement starts when the function at `begin` has returned and ends when the one at `end` is entered; a
 * program may contain many. FILE then holds lines of decimal numbers:
 *
 *   first N           instructions of the first measurement
 *   total N           of all of them
 *   runs N            how many there were
 *   run N             instructions of each, in order
 *   block A I P N T   with blocks=on: in phase P of the first one, the block of I instructions at address A was
 *                     entered N times, and T times it was left for another address than the one behind it
 *
 * Phase 0 is the beginning; phase P begins when the function at the P-th address given as `phase` is entered.
 *
 * Counting is by translation block, which the guest leaves early only by an exception; a faulting measurement is
 * never completed, so completed ones are exact. Instructions of an IT block count whether or not they execute, as
 * they do in the core's pipeline.
 *
 * Debian's QEMU ships no header, and the API changed: version 1 (QEMU 4.2 to 8.2) adds to plain counters, version 2
 * and later (QEMU 9 on) to scoreboards. What both have is declared here; the rest is looked up when the plugin is
 * loaded, so that one source serves every QEMU. Declarations follow QEMU's documentation, docs/devel/tcg-plugins.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
typedef struct qemu_info_t qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_scoreboard;
typedef struct {
  struct qemu_plugin_scoreboard *score;
  size_t offset;
} qemu_plugin_u64;

enum { INLINE_ADD_U64 = 0, CALLBACK_NO_REGISTERS = 0 };

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
                                           void (*callback)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, void (*callback)(qemu_plugin_id_t, void *), void *data);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, void (*callback)(unsigned, void *), int flags,
                                          void *data);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, void (*callback)(unsigned, void *),
                                            int flags, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
void qemu_plugin_outs(const char *text);

typedef void (*add_v1)(struct qemu_plugin_tb *tb, int operation, void *counter, uint64_t amount);
typedef void (*add_v2)(struct qemu_plugin_tb *tb, int operation, qemu_plugin_u64 counter, uint64_t amount);
typedef struct qemu_plugin_scoreboard *(*scoreboard_new)(size_t bytes);
typedef uint64_t (*u64_sum)(qemu_plugin_u64 counter);

static struct {
  add_v1 add_plain;
  add_v2 add_scoreboard;
  scoreboard_new new_scoreboard;
  u64_sum sum;
} api;

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

/* QEMU reads qemu_plugin_version after this has run. ISO C has no cast from object to function pointer. */
__attribute__((constructor)) static void look_up_api(void) {
  *(void **)&api.add_plain = dlsym(RTLD_DEFAULT, "qemu_plugin_register_vcpu_tb_exec_inline");
  *(void **)&api.add_scoreboard = dlsym(RTLD_DEFAULT, "qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu");
  *(void **)&api.new_scoreboard = dlsym(RTLD_DEFAULT, "qemu_plugin_scoreboard_new");
  *(void **)&api.sum = dlsym(RTLD_DEFAULT, "qemu_plugin_u64_sum");
  if (api.add_scoreboard && api.new_scoreboard && api.sum) {
    qemu_plugin_version = 2;
  }
}

typedef struct {
  uint64_t plain;
  qemu_plugin_u64 scoreboard;
} counter;

enum { MAX_PHASES = 1024 };

typedef struct {
  uint64_t entered;
  uint64_t left; /* for another address than the block's end */
} tally;

typedef struct block {
  struct block *next;
  uint64_t address;
  uint64_t end; /* address behind its last instruction */
  uint64_t instructions;
  size_t begins; /* the phase whose function it begins, or 0 */
  tally *tallies; /* by phase, of the first measurement */
} block;

static struct {
  uint64_t begin, end;
  uint64_t phases[MAX_PHASES]; /* [0] is not used */
  size_t n_phases;
  char out[512];
  bool with_blocks;
} options;

static counter executed;
static block *blocks;
static bool measuring;
static uint64_t started, total, runs;
static uint64_t *each; /* instructions of each run; room for a power of two of them */
static size_t phase;
static tally *latest; /* of the block that was entered last, in its phase */
static uint64_t latest_end;

static void counter_init(counter *count) {
  if (qemu_plugin_version >= 2) {
    count->scoreboard.score = api.new_scoreboard(sizeof(uint64_t));
  }
}

static void counter_add(struct qemu_plugin_tb *tb, counter *count, uint64_t amount) {
  if (qemu_plugin_version >= 2) {
    api.add_scoreboard(tb, INLINE_ADD_U64, count->scoreboard, amount);
  } else {
    api.add_plain(tb, INLINE_ADD_U64, &count->plain, amount);
  }
}

static uint64_t counter_read(const counter *count) {
  return qemu_plugin_version >= 2 ? api.sum(count->scoreboard) : count->plain;
}

/* A block is counted when it is entered, before its instructions' callbacks: the block of `begin` is in `started`. */
static void on_begin(unsigned vcpu, void *data) {
  (void)vcpu;
  (void)data;
  measuring = true;
  started = counter_read(&executed);
}

/* Appends to `each`, which grows whenever the number of runs is zero or a power of two. */
static void keep(uint64_t count) {
  if ((runs & (runs - 1)) == 0) {
    each = realloc(each, (runs ? 2 * runs : 1) * sizeof *each);
    if (!each) {
      abort();
    }
  }
  each[runs++] = count;
}

static void on_end(unsigned vcpu, void *data) {
  const block *own = data;
  (void)vcpu;
  if (!measuring) {
    return;
  }
  measuring = false;
  const uint64_t count = counter_read(&executed) - started - own->instructions;
  total += count;
  keep(count);
  if (runs == 1 && options.with_blocks) {
    own->tallies[phase].entered--;
  }
}

static void on_block(unsigned vcpu, void *data) {
  const block *entry = data;
  (void)vcpu;
  if (!measuring || runs > 0) {
    return;
  }
  if (latest && latest_end != entry->address) {
    latest->left++;
  }
  if (entry->begins) {
    phase = entry->begins;
  }
  latest = &entry->tallies[phase];
  latest->entered++;
  latest_end = entry->end;
}

static void *allocate(size_t count, size_t bytes) {
  void *memory = calloc(count, bytes);
  if (!memory) {
    abort();
  }
  return memory;
}

static block *new_block(const struct qemu_plugin_tb *tb) {
  block *entry = allocate(1, sizeof *entry);
  entry->address = qemu_plugin_tb_vaddr(tb);
  entry->instructions = qemu_plugin_tb_n_insns(tb);
  entry->next = blocks;
  blocks = entry;
  return entry;
}

static void count_block(struct qemu_plugin_tb *tb, block *entry) {
  const struct qemu_plugin_insn *last = qemu_plugin_tb_get_insn(tb, entry->instructions - 1);
  entry->end = qemu_plugin_insn_vaddr(last) + qemu_plugin_insn_size(last);
  entry->tallies = allocate(options.n_phases + 1, sizeof *entry->tallies);
  for (size_t i = 1; i <= options.n_phases; i++) {
    if (options.phases[i] == entry->address) {
      entry->begins = i;
    }
  }
  qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block, CALLBACK_NO_REGISTERS, entry);
}

static void on_translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
  block *entry = new_block(tb);
  (void)id;
  counter_add(tb, &executed, entry->instructions);
  if (options.with_blocks) {
    count_block(tb, entry);
  }
  for (size_t i = 0; i < entry->instructions; i++) {
    struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
    const uint64_t address = qemu_plugin_insn_vaddr(insn);
    if (address == options.begin) {
      qemu_plugin_register_vcpu_insn_exec_cb(insn, on_begin, CALLBACK_NO_REGISTERS, entry);
    }
    if (address == options.end) {
      qemu_plugin_register_vcpu_insn_exec_cb(insn, on_end, CALLBACK_NO_REGISTERS, entry);
    }
  }
}

static void write_block(FILE *file, const block *entry) {
  for (size_t i = 0; i <= options.n_phases; i++) {
    const tally *count = &entry->tallies[i];
    if (count->entered) {
      fprintf(file, "block %" PRIu64 " %" PRIu64 " %zu %" PRIu64 " %" PRIu64 "\n", entry->address, entry->instructions,
              i, count->entered, count->left);
    }
  }
}

static void write_counts(qemu_plugin_id_t id, void *unused) {
  FILE *file = fopen(options.out, "w");
  (void)id;
  (void)unused;
  if (!file) {
    qemu_plugin_outs("tvmt_count: cannot write the counts\n");
    return;
  }
  fprintf(file, "first %" PRIu64 "\ntotal %" PRIu64 "\nruns %" PRIu64 "\n", runs ? each[0] : 0, total, runs);
  for (uint64_t i = 0; i < runs; i++) {
    fprintf(file, "run %" PRIu64 "\n", each[i]);
  }
  for (const block *entry = blocks; options.with_blocks && entry; entry = entry->next) {
    write_block(file, entry);
  }
  fclose(file);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
  (void)info;
  for (int i = 0; i < argc; i++) {
    if (!strncmp(argv[i], "begin=", 6)) {
      options.begin = strtoull(argv[i] + 6, NULL, 0);
    } else if (!strncmp(argv[i], "end=", 4)) {
      options.end = strtoull(argv[i] + 4, NULL, 0);
    } else if (!strncmp(argv[i], "out=", 4) && strlen(argv[i] + 4) < sizeof options.out) {
      strcpy(options.out, argv[i] + 4);
    } else if (!strncmp(argv[i], "phase=", 6) && options.n_phases + 1 < MAX_PHASES) {
      options.phases[++options.n_phases] = strtoull(argv[i] + 6, NULL, 0);
    } else if (!strcmp(argv[i], "blocks=on")) {
      options.with_blocks = true;
    } else {
      fprintf(stderr, "tvmt_count: unknown argument %s\n", argv[i]);
      return 1;
    }
  }
  if (qemu_plugin_version < 2 && !api.add_plain) {
    fprintf(stderr, "tvmt_count: this QEMU has neither inline counters nor scoreboards\n");
    return 1;
  }
  counter_init(&executed);
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
  qemu_plugin_register_atexit_cb(id, write_counts, NULL);
  return 0;
}
