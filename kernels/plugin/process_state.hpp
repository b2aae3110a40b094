#pragma once
// What a kernel may change of its process and the next call is to find as it was.

#include <sys/resource.h>

#include <array>
#include <cfenv>
#include <csignal>
#include <string>
#include <vector>

namespace kdacheck::plugin {

/// Floating-point mode and signal mask of the calling thread; working folder, file mask, environment, locale, limits and alarms of
/// the process, as they are when this is made (the first: as given). Threads that go on, handlers of signals and what is mapped are not in
/// it.
class ProcessState {
public:
  explicit ProcessState(const std::fenv_t&);
  ProcessState(const ProcessState&) = delete;
  ProcessState& operator=(const ProcessState&) = delete;
  ~ProcessState();

  /// Puts back what has changed. A hard limit that was lowered stays so where the system does not let it be raised.
  void restore() const;

private:
  std::fenv_t mode_;
  sigset_t signals_{};
  int folder_ = -1;
  unsigned file_mask_ = 0;
  std::vector<std::string> environment_;
  std::string locale_;
  std::array<rlimit, RLIM_NLIMITS> limits_{};
};

} // namespace kdacheck::plugin
