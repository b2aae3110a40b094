#include "child_process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <thread>

namespace kdacheck::plugin {
namespace {

/// Between fork and exec: only calls that are safe in a child of a process with threads.
[[noreturn]] void become(char* const* arguments, const int* sources, int count, bool keep_standard_error) {
  setpgid(0, 0); // a Ctrl-C at the terminal is for the parent
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  // First out of the way of the targets, then into place.
  int high[16];
  for (int i = 0; i < count; ++i)
    if ((high[i] = fcntl(sources[i], F_DUPFD, 64)) < 0) _exit(126);
  for (int i = 0; i < count; ++i)
    if (dup2(high[i], 3 + i) < 0) _exit(126);
  const int null = open("/dev/null", O_RDWR);
  if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || (!keep_standard_error && dup2(null, 2) < 0)) _exit(126);
  for (int i = 0; i < count; ++i) close(high[i]);
  if (null > 2 + count) close(null);
  execv(arguments[0], arguments);
  _exit(127);
}

} // namespace

ChildProcess::ChildProcess(const std::vector<std::string>& command, const std::vector<int>& descriptors, bool keep_standard_error) {
  int control[2], lifeline[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) != 0)
    throw std::runtime_error(std::string("cannot create a socket: ") + std::strerror(errno));
  if (pipe2(lifeline, O_CLOEXEC) != 0) {
    close(control[0]);
    close(control[1]);
    throw std::runtime_error(std::string("cannot create a pipe: ") + std::strerror(errno));
  }
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  std::vector<int> sources{control[1], lifeline[0]};
  sources.insert(sources.end(), descriptors.begin(), descriptors.end());
  pid_ = fork();
  if (pid_ == 0) become(arguments.data(), sources.data(), static_cast<int>(sources.size()), keep_standard_error);
  const int error = errno;
  close(control[1]);
  close(lifeline[0]);
  control_ = control[0];
  lifeline_ = lifeline[1];
  if (pid_ < 0) {
    close(control_);
    close(lifeline_);
    throw std::runtime_error(std::string("cannot start a process: ") + std::strerror(error));
  }
  setpgid(pid_, pid_);
}

ChildProcess::~ChildProcess() {
  kill_child();
  close(control_);
  close(lifeline_);
}

bool ChildProcess::signal_child(char what) { return send(control_, &what, 1, MSG_NOSIGNAL) == 1; }

int ChildProcess::wait_for_child(char& what, std::chrono::milliseconds patience) {
  const auto deadline = std::chrono::steady_clock::now() + patience;
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now()).count();
    pollfd poll_for{control_, POLLIN, 0};
    const int ready = poll(&poll_for, 1, left > 0 ? static_cast<int>(left) : 0);
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0) return 0;
    if (ready < 0) return -1;
    const auto got = recv(control_, &what, 1, 0);
    if (got < 0 && errno == EINTR) continue;
    return got == 1 ? 1 : -1;
  }
}

void ChildProcess::kill_child() {
  if (pid_ < 0 || end_.ended) return;
  kill(-pid_, SIGKILL);
  kill(pid_, SIGKILL);
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
  end_ = {true, "was killed"};
}

ChildEnd ChildProcess::finish() {
  if (end_.ended) return end_;
  int status = 0;
  for (int attempt = 0; attempt < 100; ++attempt) {
    const int got = waitpid(pid_, &status, WNOHANG);
    if (got == pid_) {
      kill(-pid_, SIGKILL); // whatever it started
      if (WIFSIGNALED(status))
        end_ = {true, "was killed by signal " + std::to_string(WTERMSIG(status)) + " (" + strsignal(WTERMSIG(status)) + ")"};
      else
        end_ = {true, "ended with status " + std::to_string(WEXITSTATUS(status))};
      return end_;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  kill_child();
  return {true, "closed its pipes without ending"};
}

} // namespace kdacheck::plugin
