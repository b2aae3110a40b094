#include "supervisor.hpp"

#include "process_tree.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <system_error>

namespace kdacheck::plugin {
namespace {

constexpr int socket_descriptor = 3, lifeline = 4;
constexpr std::chrono::milliseconds glance{100}; // at the worker's memory
constexpr int glances_per_census = 10;           // one of so many is at that of all that it started

/// The end of what is written to standard error.
class LastWords {
public:
  LastWords() = default;
  /// Opens a pipe, whose writing end is returned; -1: none.
  int open_pipe() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return -1;
    descriptor_ = ends[0];
    fcntl(descriptor_, F_SETFL, O_NONBLOCK);
    return ends[1];
  }
  int descriptor() const { return descriptor_; }
  /// Takes what there is. Once nobody can write any more, nothing is waited for either.
  void listen() {
    std::array<char, 1 << 16> buffer;
    ssize_t got = 0;
    for (int turn = 0; turn < 16 && descriptor_ >= 0 && (got = read(descriptor_, buffer.data(), buffer.size())) > 0; ++turn)
      add({buffer.data(), static_cast<std::size_t>(got)});
    if (descriptor_ < 0 || got != 0) return;
    close(descriptor_);
    descriptor_ = -1;
  }
  void add(std::string_view text) {
    end_.append(text);
    if (end_.size() > 2 * longest) end_.erase(0, end_.size() - longest);
  }
  /// Writes the end of it all to this process's standard error.
  void pass_on() {
    while (descriptor_ >= 0) {
      const std::size_t before = end_.size();
      listen();
      if (end_.size() == before) break; // nobody is left who could write more
    }
    if (end_.size() > longest) end_.erase(0, end_.size() - longest);
    if (write(2, end_.data(), end_.size()) < 0) { // then it stays unsaid
    }
  }

private:
  static constexpr std::size_t longest = 4000;
  int descriptor_ = -1;
  std::string end_;
};

/// What a worker and all that it started may hold: half of the memory, or KDACHECK_WORKER_GIB.
std::int64_t memory_allowed() {
  const char* chosen = std::getenv("KDACHECK_WORKER_GIB");
  const double gibibytes = chosen ? std::atof(chosen) : 0;
  return gibibytes > 0 ? static_cast<std::int64_t>(std::min(gibibytes, 1e6) * (1 << 30)) : memory_of_the_machine() / 2;
}

/// Sees to it that a worker does not take more than it may, nor, beyond half of that, the last twentieth of the machine's.
class MemoryWatch {
public:
  MemoryWatch(int worker, const char* folder) : worker_(worker), folder_(folder) {}

  /// Looks, if it is time to, and returns why the worker has to go, or nothing.
  std::string verdict() {
    if (std::chrono::steady_clock::now() < next_) return {};
    next_ = std::chrono::steady_clock::now() + glance;
    const bool census = ++glances_ % glances_per_census == 0;
    const std::int64_t held = census ? resident_below(allowed_ / 4) + (folder_[0] != '\0' ? bytes_in(folder_) : 0) : resident(worker_);
    if (held > allowed_) return "took more than the " + gibibytes(allowed_) + " GiB of memory that a worker may have";
    if (held <= allowed_ / 2) return {};
    const std::int64_t free = memory_available();
    if (free < 0 || free >= all_ / 20) return {};
    return "held " + gibibytes(held) + " GiB when less than a twentieth of the machine's memory was left";
  }

private:
  static std::string gibibytes(std::int64_t bytes) {
    char text[32];
    std::snprintf(text, sizeof text, "%.3g", static_cast<double>(bytes) / (1 << 30));
    return text;
  }

  const int worker_;
  const char* const folder_;
  const std::int64_t all_ = memory_of_the_machine(), allowed_ = memory_allowed();
  std::chrono::steady_clock::time_point next_{};
  int glances_ = 0;
};

[[noreturn]] void become(Channel channel, char* const* command, const sigset_t& signals, int supervisor, int standard_error) {
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
  const auto bytes = static_cast<rlim_t>(memory_of_the_machine()), held = static_cast<rlim_t>(memory_allowed());
  const rlimit memory{bytes, bytes}, file{held, held}, no_core{0, 0};
  setrlimit(RLIMIT_DATA, &memory); // address space that is merely reserved, as CUDA does, is not counted
  setrlimit(RLIMIT_FSIZE, &file);  // a file may lie in memory
  setrlimit(RLIMIT_CORE, &no_core);
  if (dup2(standard_error, 2) < 0) _exit(126);
  close(standard_error);
  if (channel == Channel::standard) {
    if (dup2(socket_descriptor, 0) < 0 || dup2(socket_descriptor, 1) < 0) _exit(126);
    close(socket_descriptor);
  }
  execvp(command[0], command);
  dprintf(2, "%s: %s\n", command[0], std::strerror(errno));
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

void supervise(Channel channel, int standard_error, const char* folder, char* const* command) {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  fcntl(lifeline, F_SETFD, FD_CLOEXEC);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::signal(signal, SIG_IGN);
  sigset_t child_ended, before;
  sigemptyset(&child_ended);
  sigaddset(&child_ended, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child_ended, &before);
  const int ended = signalfd(-1, &child_ended, SFD_CLOEXEC | SFD_NONBLOCK);
  LastWords words;
  if (standard_error < 0) standard_error = words.open_pipe();
  const int self = getpid(), worker = fork();
  if (worker == 0) become(channel, command, before, self, standard_error);
  if (worker < 0 || ended < 0 || standard_error < 0) _exit(126);
  for (int i = socket_descriptor; i < 32; ++i)
    if (i != lifeline && i != ended && i != words.descriptor()) close(i); // the gate is to see it when the worker closes its own
  MemoryWatch watch(worker, folder);
  std::string reason;
  int status = 0;
  bool by_itself = false;
  while (!by_itself && reason.empty()) {
    std::array<pollfd, 3> wait_for{{{ended, POLLIN, 0}, {lifeline, POLLIN, 0}, {words.descriptor(), POLLIN, 0}}};
    const int ready = poll(wait_for.data(), wait_for.size(), static_cast<int>(glance.count()));
    if (ready < 0 && errno != EINTR) break;
    signalfd_siginfo dropped;
    while (read(ended, &dropped, sizeof dropped) > 0) {
    }
    int one = 0, how = 0;
    while ((one = waitpid(-1, &how, WNOHANG)) > 0) // what the worker left to itself is reaped too
      if (one == worker) status = how, by_itself = true;
    words.listen();
    if (wait_for[1].revents != 0) break;
    if (!by_itself) reason = watch.verdict();
  }
  end_all(by_itself ? 0 : worker);
  if (!reason.empty()) words.add("\n" + reason + "\n"), status = SIGKILL, by_itself = true;
  words.pass_on();
  if (folder[0] != '\0') {
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
  }
  if (!by_itself) _exit(0);
  end_as(status);
}

} // namespace kdacheck::plugin
