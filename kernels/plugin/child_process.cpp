#include "child_process.hpp"

#include "abandoned_calls.hpp"
#include "plain_words.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <thread>

namespace kdacheck::plugin {
namespace {

constexpr std::chrono::seconds supervisor_patience{5}; ///< to end everything and itself

/// Between fork and exec: only calls that are safe in a child of a process with threads.
[[noreturn]] void become(char* const* arguments, const int* sources, int count, int standard_error) {
  setpgid(0, 0); // a Ctrl-C at the terminal is for the parent
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  // First out of the way of the targets, then into place.
  int high[16];
  for (int i = 0; i < count; ++i)
    if ((high[i] = fcntl(sources[i], F_DUPFD, 64)) < 0) _exit(126);
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null < 0 || dup2(standard_error, 2) < 0) _exit(126);
  for (int i = 0; i < count; ++i)
    if (dup2(high[i], 3 + i) < 0) _exit(126);
  if (dup2(null, 0) < 0 || dup2(null, 1) < 0) _exit(126);
  for (int i = 0; i < count; ++i) close(high[i]);
  execv(arguments[0], arguments);
  _exit(127);
}

} // namespace

std::string worker_program() {
  const char* carried = std::getenv("KDACHECK_WORKER_PATH");
  return carried ? carried : KDACHECK_PLUGIN_WORKER;
}

ChildProcess::ChildProcess(const std::vector<std::string>& command, Channel channel, const std::vector<int>& descriptors,
                           bool keep_standard_error, const std::string& folder) {
  int control[2], lifeline[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) != 0)
    throw std::runtime_error(std::string("cannot create a socket: ") + std::strerror(errno));
  if (pipe2(lifeline, O_CLOEXEC) != 0) {
    close(control[0]);
    close(control[1]);
    throw std::runtime_error(std::string("cannot create a pipe: ") + std::strerror(errno));
  }
  if ((said_ = memfd_create("kdacheck-said", MFD_CLOEXEC)) < 0) {
    const int trouble = errno;
    for (const int one : {control[0], control[1], lifeline[0], lifeline[1]}) close(one);
    throw std::runtime_error(std::string("cannot create shared memory: ") + std::strerror(trouble));
  }
  std::vector<std::string> words{worker_program(), "supervise", channel == Channel::standard ? "standard" : "control",
                                 keep_standard_error ? std::to_string(5 + descriptors.size()) : "quiet", folder};
  words.insert(words.end(), command.begin(), command.end());
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  std::vector<int> sources{control[1], lifeline[0]};
  sources.insert(sources.end(), descriptors.begin(), descriptors.end());
  if (keep_standard_error) sources.push_back(STDERR_FILENO); // the last of them
  pid_ = fork();
  if (pid_ == 0) become(arguments.data(), sources.data(), static_cast<int>(sources.size()), said_);
  const int trouble = errno;
  close(control[1]);
  close(lifeline[0]);
  control_ = control[0];
  lifeline_ = lifeline[1];
  if (pid_ < 0) {
    close(control_);
    close(lifeline_);
    if (said_ >= 0) close(said_);
    throw std::runtime_error(std::string("cannot start a process: ") + std::strerror(trouble));
  }
}

ChildProcess::~ChildProcess() {
  kill_child();
  close(control_);
  if (said_ >= 0) close(said_);
}

bool ChildProcess::signal_child(char what) { return send(control_, &what, 1, MSG_NOSIGNAL) == 1; }

int ChildProcess::wait_until(std::chrono::steady_clock::time_point deadline) {
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now()).count();
    pollfd wait_for[2]{{control_, POLLIN, 0}, {no_more_calls(), POLLIN, 0}};
    const int ready = poll(wait_for, 2, left > 0 ? static_cast<int>(left) : 0);
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return ready;
    if (wait_for[0].revents != 0) return 1;
    kill_child();
    throw CallAbandoned{};
  }
}

int ChildProcess::wait_for_child(char& what, std::chrono::milliseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  for (;;) {
    if (const int ready = wait_until(deadline); ready <= 0) return ready;
    const auto got = recv(control_, &what, 1, 0);
    if (got < 0 && errno == EINTR) continue;
    return got == 1 ? 1 : -1;
  }
}

bool ChildProcess::send_line(const std::string& text) {
  const std::string line = text + "\n";
  for (std::size_t sent = 0; sent < line.size();) {
    const auto now = send(control_, line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
    if (now < 0 && errno == EINTR) continue;
    if (now <= 0) return false;
    sent += static_cast<std::size_t>(now);
  }
  return true;
}

int ChildProcess::read_line(std::string& line, std::chrono::milliseconds patience, std::size_t limit) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  for (;;) {
    if (const auto end = received_.find('\n'); end != std::string::npos) {
      line = received_.substr(0, end);
      received_.erase(0, end + 1);
      return 1;
    }
    if (received_.size() > limit) return -2;
    if (const int ready = wait_until(deadline); ready <= 0) return ready;
    char buffer[4096];
    const auto got = recv(control_, buffer, sizeof buffer, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return -1;
    received_.append(buffer, static_cast<std::size_t>(got));
  }
}

bool ChildProcess::silent() {
  pollfd poll_for{control_, POLLIN, 0};
  siginfo_t info{};
  return !end_.ended && received_.empty() && poll(&poll_for, 1, 0) == 0 &&
         waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
}

std::string ChildProcess::last_words() const {
  constexpr std::size_t longest = 300;
  char end[4096];
  const auto got = said_ < 0 ? 0 : pread(said_, end, sizeof end, 0);
  std::string_view text(end, got > 0 ? static_cast<std::size_t>(got) : 0);
  const auto last = text.find_last_not_of(" \t\r\n");
  text = text.substr(0, last == text.npos ? 0 : last + 1);
  if (const auto newline = text.rfind('\n'); newline != text.npos) text.remove_prefix(newline + 1);
  return plain_words(text, longest);
}

void ChildProcess::kill_child() {
  if (pid_ < 0 || end_.ended) return;
  if (lifeline_ >= 0) close(lifeline_); // the supervisor ends all that is below it
  lifeline_ = -1;
  int got = 0;
  auto pause = std::chrono::microseconds(50);
  const auto deadline = std::chrono::steady_clock::now() + supervisor_patience;
  while ((got = waitpid(pid_, nullptr, WNOHANG)) == 0 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(pause);
    pause = std::min(2 * pause, std::chrono::microseconds(10000));
  }
  if (got == 0) { // stopped, or waiting for a process that the system does not let die
    kill(pid_, SIGKILL);
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  end_ = {.ended = true, .how = "was killed"};
}

ChildEnd ChildProcess::finish() {
  if (end_.ended) return end_;
  int status = 0;
  for (int attempt = 0; attempt < 100; ++attempt) {
    const int got = waitpid(pid_, &status, WNOHANG);
    if (got == pid_) {
      close(lifeline_);
      lifeline_ = -1;
      end_ = {.ended = true, .how = {}, .status = status};
      if (WIFSIGNALED(status))
        end_.how = "was killed by signal " + std::to_string(WTERMSIG(status)) + " (" + strsignal(WTERMSIG(status)) + ")";
      else
        end_.how = "ended with status " + std::to_string(WEXITSTATUS(status));
      if (const std::string words = last_words(); !words.empty()) end_.how += ": " + words;
      return end_;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  kill_child();
  return {.ended = true, .how = "closed its pipes without ending"};
}

} // namespace kdacheck::plugin
