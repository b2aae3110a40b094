/* Kernels that do what no kernel may: one name, one way to misbehave. */
#define _GNU_SOURCE
#include "kdacheck_plugin.h"

#include <fenv.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
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
static int changes_lengths(ARGUMENTS) {
  UNUSED;
  zeros(in, out);
  if (in->cu_seqlens) ((int64_t*)in->cu_seqlens)[0] += 1;
  return 0;
}
/* Rounds upwards from here on, as one may to form a bound. */
static int leaves_rounding_up(ARGUMENTS) {
  UNUSED;
  zeros(in, out);
  return fesetround(FE_UPWARD);
}
static int tells_rounding(ARGUMENTS) {
  UNUSED;
  zeros(in, out);
  volatile float tiny = 1e-30f;
  ((float*)out->o.data)[0] = 1.0f + tiny;
  return 0;
}
/* Whatever a kernel can change of its process, and how the next one finds it. */
static int disturbs(ARGUMENTS) {
  UNUSED;
  zeros(in, out);
  sigset_t all;
  sigfillset(&all);
  struct rlimit none = {0, 0};
  getrlimit(RLIMIT_FSIZE, &none);
  none.rlim_cur = 0;
  const int set = fesetround(FE_UPWARD) == 0 && chdir("/") == 0 && sigprocmask(SIG_BLOCK, &all, NULL) == 0 && clearenv() == 0 &&
                  setenv("KDACHECK_TEST_WORD", "left behind", 1) == 0 && setlocale(LC_ALL, "C.UTF-8") &&
                  setrlimit(RLIMIT_FSIZE, &none) == 0;
  umask(0777);
  alarm(60);
  return !set;
}
static int describes_the_process(ARGUMENTS) {
  UNUSED;
  char folder[256] = "";
  sigset_t now;
  sigprocmask(SIG_BLOCK, NULL, &now);
  struct rlimit files;
  getrlimit(RLIMIT_FSIZE, &files);
  const char* word = getenv("KDACHECK_TEST_WORD");
  const unsigned mask = umask(0);
  umask(mask);
  int words = 0;
  while (environ && environ[words]) ++words;
  snprintf(why, why_size, "rounding %d, in %s, signals %d, %d words %s, locale %s, files %llu, mask %o, alarm %u", fegetround(),
           getcwd(folder, sizeof folder) ? folder : "nowhere", sigismember(&now, SIGUSR1), words, word ? word : "", setlocale(LC_ALL, NULL),
           (unsigned long long)files.rlim_cur, mask, alarm(0));
  return 1;
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
/* The byte by which a call is answered, from another process: in the call, and when it is over. */
static int answers_itself(ARGUMENTS) {
  UNUSED;
  zeros(in, out);
  return write(3, "d", 1) != 1;
}
static int answers_later(ARGUMENTS) {
  UNUSED;
  zeros(in, out);
  if (fork() != 0) return 0;
  usleep(50000);
  _exit(write(3, "d", 1) != 1);
}
static int ends_later(ARGUMENTS) {
  UNUSED;
  zeros(in, out);
  const pid_t self = getpid();
  if (fork() != 0) return 0;
  usleep(50000);
  _exit(kill(self, SIGSEGV));
}
static int eats_memory(ARGUMENTS) {
  UNUSED;
  for (;;) {
    char* p = malloc((size_t)1 << 32);
    if (!p) abort();
  }
}

static int touches_memory(ARGUMENTS) {
  UNUSED;
  for (;;) {
    char* p = malloc((size_t)1 << 24);
    if (!p) abort();
    memset(p, 1, (size_t)1 << 24);
  }
}
/* No limit of the system's counts memory that is shared with nobody. */
static int touches_shared_memory(ARGUMENTS) {
  UNUSED;
  for (;;) {
    char* p = mmap(NULL, (size_t)1 << 24, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) abort();
    memset(p, 1, (size_t)1 << 24);
  }
}
/* Each of eight processes takes what one may. */
static int touches_memory_together(ARGUMENTS) {
  UNUSED;
  for (int i = 0; i < 8; ++i)
    if (fork() == 0) {
      for (int j = 0; j < 16; ++j) memset(malloc((size_t)1 << 24), 1, (size_t)1 << 24);
      for (;;) pause();
    }
  for (;;) pause();
  return 0;
}
/* Descriptor 5 is the memory that the call lies in: whoever reads where it has ended is killed. */
static int shortens_the_call(ARGUMENTS) {
  UNUSED;
  zeros(in, out);
  snprintf(why, why_size, "%s", ftruncate(5, 0) == 0 ? "shortened" : "not shortened");
  return 1;
}
static int scribbles(ARGUMENTS) {
  UNUSED;
  memset(mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, 5, 0), 0xff, 65536);
  return 0;
}
static int refuses_in_bytes(ARGUMENTS) {
  UNUSED;
  snprintf(why, why_size, "no \xff\xfe\x80 text\n");
  return 1;
}
/* Children that nobody waits for, and one that goes on. */
static int leaves_zombies(ARGUMENTS) {
  UNUSED;
  zeros(in, out);
  for (int i = 0; i < 50; ++i)
    if (fork() == 0) _exit(0);
  if (fork() == 0)
    for (;;) pause();
  return 0;
}
/* Does what it should unless T is odd. */
static int crashes_now_and_then(ARGUMENTS) {
  UNUSED;
  if (in->T % 2) abort();
  zeros(in, out);
  return 0;
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
                                            KERNEL(changes_lengths),
                                            KERNEL(leaves_rounding_up),
                                            KERNEL(tells_rounding),
                                            KERNEL(disturbs),
                                            KERNEL(describes_the_process),
                                            KERNEL(refuses),
                                            KERNEL(writes_nothing),
                                            KERNEL(wrong_answer),
                                            KERNEL(answers_itself),
                                            KERNEL(answers_later),
                                            KERNEL(ends_later),
                                            KERNEL(eats_memory),
                                            KERNEL(touches_memory),
                                            KERNEL(touches_shared_memory),
                                            KERNEL(touches_memory_together),
                                            KERNEL(shortens_the_call),
                                            KERNEL(scribbles),
                                            KERNEL(refuses_in_bytes),
                                            KERNEL(leaves_zombies),
                                            KERNEL(crashes_now_and_then),
                                            KERNEL(stops_itself),
                                            KERNEL(kills_its_group),
                                            KERNEL(leaves_a_daemon),
                                            KERNEL(leaves_a_daemon_and_hangs)};
  static const kdacheck_library library = {KDACHECK_PLUGIN_VERSION, sizeof kernels / sizeof *kernels, kernels};
  return version == KDACHECK_PLUGIN_VERSION ? &library : NULL;
}
