#include "module_process.hpp"

#include "../team.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fmt/core.h>
#include <limits>
#include <mutex>
#include <stdexcept>
#include <string>

namespace kdacheck {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds glance{100}, grace{5'000};

/// A finding on its way: these numbers, then the texts.
struct Reply {
  Verdict verdict;
  double bound_util, seconds;
  bool has_place;
  std::array<std::int64_t, 6> place;
  Metrics metrics;
  std::array<std::size_t, 3> lengths; ///< of the place's tensor, the detail, the oracle
};

bool send_all(int socket, const void* from, std::size_t count) {
  for (const auto* at = static_cast<const char*>(from); count > 0;) {
    const auto sent = send(socket, at, count, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    at += sent, count -= static_cast<std::size_t>(sent);
  }
  return true;
}

enum class Got : unsigned char { all, nothing_in_time, end_of_file };

Got receive_all(int socket, void* to, std::size_t count, const std::function<bool()>& waits_no_longer) {
  for (auto* at = static_cast<char*>(to); count > 0;) {
    pollfd one{socket, POLLIN, 0};
    const int ready = poll(&one, 1, static_cast<int>(glance.count()));
    if (ready < 0 && errno != EINTR) return Got::end_of_file;
    if (ready <= 0) {
      if (waits_no_longer()) return Got::nothing_in_time;
      continue;
    }
    const auto got = recv(socket, at, count, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return Got::end_of_file;
    at += got, count -= static_cast<std::size_t>(got);
  }
  return Got::all;
}

bool answer(int socket, const ModuleCaseChoice& choice) {
  const ModuleCaseResult result =
      run_module_case(*choice.suite, *choice.law, choice.regime->name, choice.seed, choice.fault ? choice.fault->name : std::string());
  const Finding& finding = result.finding;
  const Place place = finding.place.value_or(Place{});
  const Reply reply{.verdict = finding.verdict,
                    .bound_util = finding.bound_util,
                    .seconds = result.seconds,
                    .has_place = finding.place.has_value(),
                    .place = {place.sequence, place.head, place.token, place.channel, place.row, place.chunk_position},
                    .metrics = finding.metrics,
                    .lengths = {place.tensor.size(), finding.detail.size(), finding.oracle.size()}};
  const std::string texts = place.tensor + finding.detail + finding.oracle;
  return send_all(socket, &reply, sizeof reply) && send_all(socket, texts.data(), texts.size());
}

/// The child: cases, until nobody asks any more.
[[noreturn]] void serve(int socket, int parent) {
  setpgid(0, 0); // a Ctrl-C at the terminal is for the parent
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) ::signal(signal, SIG_DFL);
  // What the parent has not written yet is not for this process to write, whichever way it ends.
  if (const int null = open("/dev/null", O_RDWR | O_CLOEXEC); null >= 0) dup2(null, 0), dup2(null, 1), close(null);
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  if (const int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC); score >= 0) {
    if (write(score, "1000", 4) != 4) { // where memory runs out, the system chooses by itself
    }
    close(score);
  }
  try {
    ModuleCaseChoice choice;
    while (receive_all(socket, &choice, sizeof choice, [] { return false; }) == Got::all && answer(socket, choice)) {
    }
  } catch (...) {
    _exit(1);
  }
  _exit(0);
}

Finding lost(Verdict verdict, std::string detail) {
  return {
      .verdict = verdict, .bound_util = std::numeric_limits<double>::infinity(), .place = {}, .detail = std::move(detail), .metrics = {}};
}

std::string how_it_ended(int status) {
  if (WIFSIGNALED(status)) return fmt::format("its process was killed by signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)));
  return fmt::format("its process ended with status {}", WEXITSTATUS(status));
}

} // namespace

void ModuleProcess::start() {
  static std::mutex one_at_a_time; // another child that began now would hold this one's end of the socket open
  const std::lock_guard lock(one_at_a_time);
  int ends[2];
  const int parent = getpid();
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0) {
    pid_ = fork();
    if (pid_ == 0) close(ends[0]), serve(ends[1], parent);
    const int trouble = errno;
    close(ends[1]);
    socket_ = ends[0];
    if (pid_ > 0) {
      setpgid(pid_, pid_); // whoever comes first
      return;
    }
    errno = trouble;
  }
  const std::string why = std::strerror(errno);
  end();
  throw std::runtime_error("cannot start a process: " + why);
}

int ModuleProcess::end() {
  int status = 0;
  if (pid_ > 0) {
    kill(-pid_, SIGKILL);
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
  }
  if (socket_ >= 0) close(socket_);
  pid_ = socket_ = -1;
  return status;
}

std::optional<ModuleCaseResult> ModuleProcess::run(const ModuleCaseChoice& choice, const std::function<bool()>& given_up) {
  const auto started = Clock::now();
  ModuleCaseResult result{.module = choice.suite->name,
                          .law = choice.law->name,
                          .regime = choice.regime->name,
                          .fault = choice.fault ? choice.fault->name : std::string(),
                          .seed = choice.seed,
                          .finding = {}};
  if (pid_ < 0) start();
  auto deadline = started + patience_;
  bool abandoned = false;
  const auto waits_no_longer = [&] {
    if (!abandoned && given_up && given_up() && Clock::now() + grace < deadline) abandoned = true, deadline = Clock::now() + grace;
    return Clock::now() >= deadline;
  };
  Reply reply{};
  Got got = send_all(socket_, &choice, sizeof choice) ? receive_all(socket_, &reply, sizeof reply, waits_no_longer) : Got::end_of_file;
  std::array<std::string, 3> texts;
  for (std::size_t i = 0; i < texts.size() && got == Got::all; ++i) {
    texts[i].resize(reply.lengths[i]);
    got = receive_all(socket_, texts[i].data(), texts[i].size(), waits_no_longer);
  }
  if (got != Got::all) {
    const int status = end(); // of one that ended by itself: its own, which no later signal changes
    if (got == Got::nothing_in_time && abandoned) return std::nullopt;
    result.finding =
        got == Got::end_of_file
            ? lost(Verdict::crashed, how_it_ended(status))
            : lost(Verdict::timed_out, fmt::format("it did not end within {} s", static_cast<double>(patience_.count()) / 1000));
    result.seconds = std::chrono::duration<double>(Clock::now() - started).count();
    return result;
  }
  result.seconds = reply.seconds;
  result.finding = {.verdict = reply.verdict,
                    .bound_util = reply.bound_util,
                    .place = {},
                    .detail = std::move(texts[1]),
                    .metrics = reply.metrics,
                    .oracle = std::move(texts[2])};
  if (reply.has_place) {
    const auto& [sequence, head, token, channel, row, chunk_position] = reply.place;
    result.finding.place = Place{.tensor = std::move(texts[0]),
                                 .sequence = sequence,
                                 .head = head,
                                 .token = token,
                                 .channel = channel,
                                 .row = row,
                                 .chunk_position = chunk_position};
  }
  return result;
}

ModuleCaseResult run_in_a_process(const ModuleCaseChoice& choice, std::chrono::milliseconds patience) {
  ModuleCaseResult result;
  as_a_team(1, [&] { result = *ModuleProcess(patience).run(choice); });
  return result;
}

} // namespace kdacheck
