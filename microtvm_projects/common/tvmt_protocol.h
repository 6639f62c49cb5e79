/* The request that the harness reads and the response that it writes, as streams of bytes.
 *
 * All words are 32-bit little endian. The Python twin is tvmtiny/runner/protocol.py: change both together, and
 * TVMT_PROTOCOL_VERSION with them.
 *
 *   request   tvmt_request_header
 *             header.n_inputs words: bytes of each input of the model
 *             header.n_samples times: a word n_tokens, then the inputs one after another; of a model that runs in
 *             steps a sample is a step, and n_tokens 0 begins a sequence without one
 *   response  tvmt_response_header
 *             header.n_outputs words: bytes of each output of the model
 *             n_samples times: a word, what run returned; and if that is 0, the outputs one after another
 *             tvmt_response_end
 */
#ifndef TVMT_PROTOCOL_H
#define TVMT_PROTOCOL_H

#include <stdint.h>

#define TVMT_REQUEST_MAGIC 0x51544d54u  /* "TMTQ" */
#define TVMT_RESPONSE_MAGIC 0x52544d54u /* "TMTR" */
#define TVMT_END_MAGIC 0x45544d54u      /* "TMTE" */
#define TVMT_PROTOCOL_VERSION 1u

typedef struct {
  uint32_t magic;
  uint32_t version;
  uint32_t n_samples;
  uint32_t n_inputs;
  uint32_t fill; /* low byte: what the arena holds before the first run */
} tvmt_request_header;

typedef struct {
  uint32_t magic;
  uint32_t version;
  uint32_t n_outputs;
} tvmt_response_header;

typedef struct {
  uint32_t magic;
  uint32_t stack_bytes;       /* deepest use of the stack by a run; 0 where it cannot be told */
  uint32_t guard_bytes;       /* bytes outside the arena that were overwritten, all samples together */
  uint32_t guard_sample;      /* the first sample that did so */
  int32_t guard_offset;       /* the first such byte, from the start of the arena: negative before it */
} tvmt_response_end;

/* How the harness ends: the exit status of the process, or of the emulator. */
enum tvmt_exit {
  TVMT_EXIT_DONE = 0,
  TVMT_EXIT_OPEN = 90,    /* the transport could not be opened */
  TVMT_EXIT_REQUEST = 91, /* the request is not one, or is not for this model */
  TVMT_EXIT_READ = 92,    /* the request ended early */
  TVMT_EXIT_WRITE = 93,   /* the response could not be written */
  TVMT_EXIT_STACK = 94,   /* the run used the whole stack */
  TVMT_EXIT_ARENA = 95,   /* the model wants a larger or more aligned arena than the harness has */
  TVMT_EXIT_FAULT = 100   /* plus the number of the Cortex-M exception: 103 is a HardFault */
};

#endif
