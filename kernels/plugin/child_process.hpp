#pragma once
// A child process that may crash, hang or flood without harm.

#include <chrono>
#include <string>
#include <vector>

namespace kdacheck::plugin {

/// How a child ended, or that it has not.
struct ChildEnd {
  bool ended = false;
  std::string how; ///< "ended with status 3", "was killed by signal 11 (Segmentation fault)"
};

/// Started with a control socket as descriptor 3, a lifeline as 4 (reads end-of-file when the parent is gone), and any
/// further descriptors from 5 on. Standard input and output are /dev/null; standard error is kept or dropped.
class ChildProcess {
public:
  ChildProcess(const std::vector<std::string>& command, const std::vector<int>& descriptors, bool keep_standard_error);
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;
  ~ChildProcess(); ///< kills and reaps

  /// Writes one byte; false if the child is gone.
  bool signal_child(char what);
  /// Waits for one byte from the child: 1 got it, 0 time is up, -1 the child is gone.
  int wait_for_child(char& what, std::chrono::milliseconds patience);

  /// Waits a little for a child that closed its socket to end, then kills it.
  ChildEnd finish();
  void kill_child();

private:
  int pid_ = -1, control_ = -1, lifeline_ = -1;
  ChildEnd end_;
};

} // namespace kdacheck::plugin
