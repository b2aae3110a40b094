#include "supervisor.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>

namespace kdacheck::plugin {
namespace {

constexpr int socket_descriptor = 3, lifeline = 4;

/// The parent of a process, or -1 if there is no such process.
int parent_of(const char* pid) {
  char path[300], text[512];
  std::snprintf(path, sizeof path, "/proc/%s/stat", pid);
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return -1;
  const auto got = read(file, text, sizeof text - 1);
  close(file);
  if (got <= 0) return -1;
  text[got] = '\0';
  const char* after_name = std::strrchr(text, ')'); // the name may hold anything
  int parent = -1;
  char state = 0;
  return after_name && std::sscanf(after_name + 1, " %c %d", &state, &parent) == 2 ? parent : -1;
}

/// Kills the children of this process and returns how many there were.
int kill_children() {
  int count = 0;
  if (DIR* all = opendir("/proc")) {
    while (const dirent* entry = readdir(all))
      if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' && parent_of(entry->d_name) == getpid()) {
        kill(std::atoi(entry->d_name), SIGKILL);
        ++count;
      }
    closedir(all);
  }
  return count;
}

/// Ends everything below this process. As it is the subreaper, the children of a child that dies become its own.
void end_all() {
  for (;;) {
    const int killed = kill_children();
    int got = 0;
    while ((got = waitpid(-1, nullptr, WNOHANG)) > 0) {
    }
    if (got < 0 && errno == ECHILD) return;
    if (killed > 0) waitpid(-1, nullptr, 0);
  }
}

[[noreturn]] void become(Channel channel, char* const* command, const sigset_t& signals, int supervisor) {
  setpgid(0, 0); // kill(0, ...) is to reach itself alone
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != supervisor) _exit(126);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::signal(signal, SIG_DFL);
  sigprocmask(SIG_SETMASK, &signals, nullptr);
  // Where memory runs out, this is what goes, not the gate.
  if (const int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC); score >= 0) {
    if (write(score, "1000", 4) != 4) { // then the kernel's own choice stands
    }
    close(score);
  }
  const auto bytes = static_cast<rlim_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<rlim_t>(sysconf(_SC_PAGESIZE));
  const rlimit memory{bytes, bytes}, no_core{0, 0};
  setrlimit(RLIMIT_DATA, &memory); // address space that is merely reserved, as CUDA does, is not counted
  setrlimit(RLIMIT_CORE, &no_core);
  if (channel == Channel::standard) {
    if (dup2(socket_descriptor, 0) < 0 || dup2(socket_descriptor, 1) < 0) _exit(126);
    close(socket_descriptor);
  }
  execvp(command[0], command);
  _exit(127);
}

/// Ends this process as a child ended.
[[noreturn]] void end_as(int status) {
  if (WIFSIGNALED(status)) {
    const rlimit no_core{0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    signal(WTERMSIG(status), SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    raise(WTERMSIG(status));
  }
  _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 125);
}

} // namespace

void supervise(Channel channel, const char* folder, char* const* command) {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  fcntl(lifeline, F_SETFD, FD_CLOEXEC);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::signal(signal, SIG_IGN);
  sigset_t child_ended, before;
  sigemptyset(&child_ended);
  sigaddset(&child_ended, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child_ended, &before);
  const int ended = signalfd(-1, &child_ended, SFD_CLOEXEC | SFD_NONBLOCK);
  const int self = getpid(), worker = fork();
  if (worker == 0) become(channel, command, before, self);
  if (worker < 0 || ended < 0) _exit(126);
  for (int i = socket_descriptor; i < 32; ++i)
    if (i != lifeline && i != ended) close(i); // the gate is to see it when the worker closes its own
  int status = 0;
  bool by_itself = false;
  while (!by_itself) {
    pollfd wait_for[2]{{ended, POLLIN, 0}, {lifeline, POLLIN, 0}};
    if (poll(wait_for, 2, -1) < 0 && errno != EINTR) break;
    signalfd_siginfo dropped;
    while (read(ended, &dropped, sizeof dropped) > 0) {
    }
    int one = 0, how = 0;
    while ((one = waitpid(-1, &how, WNOHANG)) > 0) // what the worker left to itself is reaped too
      if (one == worker) status = how, by_itself = true;
    if (wait_for[1].revents != 0) break;
  }
  end_all();
  if (folder[0] != '\0') {
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
  }
  if (!by_itself) _exit(0);
  end_as(status);
}

} // namespace kdacheck::plugin
