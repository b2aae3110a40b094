/* Kernels that do what no kernel may: one name, one way to misbehave. */
#include "kdacheck_plugin.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

typedef const kdacheck_inputs* In;
typedef const kdacheck_outputs* Out;
#define ARGUMENTS In in, Out out, void *workspace, size_t bytes, char *why, size_t why_size
#define UNUSED (void)in, (void)out, (void)workspace, (void)bytes, (void)why, (void)why_size

static void zeros(In in, Out out) {
  memset(out->o.data, 0, (size_t)(in->B * in->T * in->HV * in->V) * sizeof(float));
  if (out->final_state.data) memset(out->final_state.data, 0, (size_t)(in->N * in->HV * in->K * in->V) * sizeof(float));
}
static int segfault(ARGUMENTS) {
  UNUSED;
  raise(SIGSEGV);
  return 0;
}
static int aborts(ARGUMENTS) {
  UNUSED;
  abort();
}
static int leaves(ARGUMENTS) {
  UNUSED;
  exit(3);
}
static int hangs(ARGUMENTS) {
  UNUSED;
  for (;;) pause();
  return 0;
}
static int floods(ARGUMENTS) {
  UNUSED;
  for (int i = 0; i < 100000; ++i) printf("%0100d\n", i), fprintf(stderr, "%0100d\n", i);
  zeros(in, out);
  return 0;
}
static int closes_pipes(ARGUMENTS) {
  UNUSED;
  for (int i = 0; i < 64; ++i) close(i);
  zeros(in, out);
  return 0;
}
static int writes_past_end(ARGUMENTS) {
  UNUSED;
  zeros(in, out);
  ((float*)out->o.data)[in->B * in->T * in->HV * in->V] = 1;
  return 0;
}
static int writes_before_start(ARGUMENTS) {
  UNUSED;
  zeros(in, out);
  ((float*)out->o.data)[-1] = 1;
  return 0;
}
static int changes_input(ARGUMENTS) {
  UNUSED;
  zeros(in, out);
  ((float*)in->k.data)[0] += 1;
  return 0;
}
static int refuses(ARGUMENTS) {
  UNUSED;
  snprintf(why, why_size, "not on a Monday");
  return 1;
}
static int writes_nothing(ARGUMENTS) {
  UNUSED;
  return 0;
}
static int wrong_answer(ARGUMENTS) {
  UNUSED;
  zeros(in, out);
  if (write(3, "dddd", 4) != 4) return 1;
  return 0;
}
static int eats_memory(ARGUMENTS) {
  UNUSED;
  for (;;) {
    char* p = malloc((size_t)1 << 32);
    if (!p) abort();
  }
}

/* A daemon in a session of its own; its id goes into o. */
static int leaves_a_daemon(ARGUMENTS) {
  UNUSED;
  zeros(in, out);
  int ends[2];
  if (pipe(ends) != 0) return 1;
  if (fork() == 0) {
    setsid();
    if (fork() != 0) _exit(0);
    const pid_t self = getpid();
    if (write(ends[1], &self, sizeof self) == (ssize_t)sizeof self)
      for (;;) pause();
    _exit(1);
  }
  pid_t daemon = 0;
  if (read(ends[0], &daemon, sizeof daemon) != (ssize_t)sizeof daemon) return 1;
  close(ends[0]), close(ends[1]);
  ((float*)out->o.data)[0] = (float)daemon;
  return 0;
}
static int leaves_a_daemon_and_hangs(ARGUMENTS) {
  leaves_a_daemon(in, out, workspace, bytes, why, why_size);
  for (;;) pause();
  return 0;
}
static int stops_itself(ARGUMENTS) {
  UNUSED;
  raise(SIGSTOP);
  return 0;
}
static int kills_its_group(ARGUMENTS) {
  UNUSED;
  kill(0, SIGKILL);
  return 0;
}

#define KERNEL(function)                                                                                                                   \
  { .name = #function, .summary = "", .contract = "chunk=1", .forward = function }
const kdacheck_library* kdacheck_plugin(uint32_t version) {
  static const kdacheck_kernel kernels[] = {KERNEL(segfault),
                                            KERNEL(aborts),
                                            KERNEL(leaves),
                                            KERNEL(hangs),
                                            KERNEL(floods),
                                            KERNEL(closes_pipes),
                                            KERNEL(writes_past_end),
                                            KERNEL(writes_before_start),
                                            KERNEL(changes_input),
                                            KERNEL(refuses),
                                            KERNEL(writes_nothing),
                                            KERNEL(wrong_answer),
                                            KERNEL(eats_memory),
                                            KERNEL(stops_itself),
                                            KERNEL(kills_its_group),
                                            KERNEL(leaves_a_daemon),
                                            KERNEL(leaves_a_daemon_and_hangs)};
  static const kdacheck_library library = {KDACHECK_PLUGIN_VERSION, sizeof kernels / sizeof *kernels, kernels};
  return version == KDACHECK_PLUGIN_VERSION ? &library : NULL;
}
