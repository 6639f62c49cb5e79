/* A model on a line: a host opens a session, writes inputs, lets the model run, and reads outputs, over a UART, a pipe,
 * semihosting or any other line of bytes. tvmt_frame.h has the frames, docs/link.md the reasons.
 *
 *   request      payload                                 answer
 *   INFO         u32 fill                                tvmt_link_info_at and three strings
 *   WRITE        u32 offset, bytes                       -
 *   RUN          i32 n_tokens, u32 crc, u32 stop_after   tvmt_link_run_at; of a model that runs in steps, n_tokens 0
 *                                                        begins a sequence without a step
 *   READ         u32 offset, u32 count                   bytes
 *   BENCHMARK    i32 n_tokens, u32 crc, u32 runs         i32 status, then u64 cycles of each run
 *   PEEK         u32 offset, u32 count                   bytes of the arena
 *
 * Offsets of WRITE and READ count through all inputs, all outputs, one behind the other. An answer has the kind of its
 * request plus TVMT_LINK_ANSWER, or is TVMT_LINK_ERROR with a u32 of enum tvmt_link_error. TVMT_LINK_LOG is text that
 * nobody asked for.
 *
 * The host waits for an answer before the next request, and repeats a request whose answer does not come. A request
 * with the sequence number of the last one is not executed again: its answer is repeated. INFO opens a session, whose
 * number the host chooses; a device that has been reset knows none and says so. RUN names the CRC-32 of all inputs, so
 * that a model never runs on others than those that were meant, and answers with that of all outputs.
 *
 * All memory is the caller's. C11 and C++. The Python twin is tvmtiny/link/messages.py: change both together, and
 * TVMT_FRAME_VERSION with them.
 */
#ifndef TVMT_LINK_H
#define TVMT_LINK_H

#include "tvmt_frame.h"
#include "tvmt_model.h"

#ifdef __cplusplus
extern "C" {
#endif

enum tvmt_link_kind {
  TVMT_LINK_INFO = 1,
  TVMT_LINK_WRITE = 2,
  TVMT_LINK_RUN = 3,
  TVMT_LINK_READ = 4,
  TVMT_LINK_BENCHMARK = 5,
  TVMT_LINK_PEEK = 6,
  TVMT_LINK_ANSWER = 0x80,
  TVMT_LINK_LOG = 0xfe,
  TVMT_LINK_ERROR = 0xff
};

enum tvmt_link_error {
  TVMT_LINK_ERROR_VERSION = 1,     /* the request's frame is of another version */
  TVMT_LINK_ERROR_SESSION = 2,     /* no such session is open: the device was reset, or another host opened one */
  TVMT_LINK_ERROR_KIND = 3,        /* no such request */
  TVMT_LINK_ERROR_PAYLOAD = 4,     /* its payload has the wrong size */
  TVMT_LINK_ERROR_RANGE = 5,       /* beyond the inputs, the outputs, the arena or what a frame holds */
  TVMT_LINK_ERROR_INPUTS = 6,      /* the inputs on the device have another CRC: write them again */
  TVMT_LINK_ERROR_UNSUPPORTED = 7, /* this firmware was built without it */
  TVMT_LINK_ERROR_STACK = 8        /* the run used up the whole stack: what it gave is worth nothing */
};

/* Bytes of the answers to INFO (three strings follow: model, target, version of tvmtiny, each with a final zero) and
 * RUN. All are words but the first of either. */
enum tvmt_link_info_at {
  TVMT_LINK_INFO_MODEL_ID = 0, /* 8 bytes */
  TVMT_LINK_INFO_CLOCK = 8,    /* hertz of what counts cycles */
  TVMT_LINK_INFO_COUNTER = 12, /* enum tvmt_counter */
  TVMT_LINK_INFO_FLAGS = 16,
  TVMT_LINK_INFO_DATA = 20,    /* most bytes of a WRITE, READ or PEEK */
  TVMT_LINK_INFO_SAVED = 24,   /* bytes of inputs that it can keep for BENCHMARK */
  TVMT_LINK_INFO_ARENA = 28,
  TVMT_LINK_INFO_INPUTS = 32,
  TVMT_LINK_INFO_OUTPUTS = 36,
  TVMT_LINK_INFO_MAX_TOKENS = 40,
  TVMT_LINK_INFO_BYTES = 44
};
enum tvmt_link_run_at {
  TVMT_LINK_RUN_STATUS = 0, /* what the model's run returned */
  TVMT_LINK_RUN_STACK = 4,
  TVMT_LINK_RUN_CYCLES = 8, /* 8 bytes */
  TVMT_LINK_RUN_GUARD = 16,
  TVMT_LINK_RUN_GUARD_OFFSET = 20,
  TVMT_LINK_RUN_OUTPUTS = 24, /* CRC-32 of all outputs */
  TVMT_LINK_RUN_BYTES = 28
};

#define TVMT_LINK_FLAG_DEBUG 1u /* PEEK and `stop_after` are there: they show raw inputs */
#define TVMT_LINK_WHOLE_RUN UINT32_MAX

/* What counts cycles. */
enum tvmt_counter {
  TVMT_COUNTER_NONE = 0,
  TVMT_COUNTER_DWT = 1,      /* cycle counter of the core */
  TVMT_COUNTER_SYSTICK = 2,  /* timer of the core */
  TVMT_COUNTER_HOST = 3,     /* clock of an operating system */
  TVMT_COUNTER_EMULATED = 4  /* timer of an emulated core: it says nothing of a real one */
};

/* Smallest memory for a frame: the answer to INFO with its strings. */
#define TVMT_LINK_LEAST_FRAME 192u

/* One run as it was measured. */
typedef struct {
  int32_t status;       /* what the model's run returned */
  uint32_t stack_bytes; /* deepest use of the stack; 0 where it cannot be told; UINT32_MAX: all was used up */
  uint64_t cycles;
  uint32_t guard_bytes; /* bytes around the arena that were overwritten */
  int32_t guard_offset; /* the first of them, from the start of the arena: negative before it */
} tvmt_link_measure;

/* What the caller gives; it must stay as long as the link. */
typedef struct {
  const tvmt_model *model;
  uint8_t *arena;        /* aligned, model->arena_bytes */
  uint8_t model_id[8];   /* what tells this model from others */
  const char *target;
  const char *version;
  uint32_t clock_hz;
  enum tvmt_counter counter;
  uint8_t *received;     /* frame_bytes each */
  uint8_t *sent;
  uint32_t frame_bytes;  /* at least TVMT_LINK_LEAST_FRAME */
  uint8_t *saved;        /* memory for a copy of the inputs, or NULL: there is no BENCHMARK then */
  uint32_t saved_bytes;
  void (*open)(void *context, uint8_t fill); /* a session begins: the arena is to hold that byte; may be NULL */
  void (*run)(void *context, int32_t n_tokens, tvmt_link_measure *measure); /* runs the model */
  tvmt_frame_write write;
  void *context;         /* handed to the three functions */
} tvmt_link_config;

/* Contents are private. */
typedef struct {
  const tvmt_link_config *config;
  tvmt_frame_reader reader;
  uint32_t session;       /* 0: none */
  uint32_t input_bytes;
  uint32_t output_bytes;
  uint32_t answer_bytes;  /* payload of the last answer, which is still in config->sent */
  uint16_t sequence;      /* of the last request */
} tvmt_link;

/* Returns 0, or -1 when the configuration cannot work. */
int tvmt_link_init(tvmt_link *link, const tvmt_link_config *config);

/* Takes bytes of the line and answers the requests that they complete. Returns 0, or what `write` returned. */
int tvmt_link_receive(tvmt_link *link, const uint8_t *bytes, uint32_t count);

/* Whether a request has begun and not ended. */
static inline int tvmt_link_pending(const tvmt_link *link) { return tvmt_frame_pending(&link->reader); }

#ifdef __cplusplus
}
#endif

#endif
