#pragma once
// Cases of modules in a process of their own: one that takes its process down or hangs is a verdict, and the run goes on.

#include "module_suite.hpp"

#include <chrono>
#include <functional>
#include <optional>

namespace kdacheck {

/// One law of a module on one case. What is pointed to must have been there, unchanged, before the process that runs it began.
struct ModuleCaseChoice {
  const ModuleSuite* suite = nullptr;
  const ModuleLaw* law = nullptr;
  const ModuleRegime* regime = nullptr;
  const ModuleFault* fault = nullptr; ///< null: the module itself
  std::uint64_t seed = 1;
};

/// No case of the slowest tier takes a hundredth of it on an idle machine.
inline constexpr std::chrono::milliseconds module_case_patience{120'000};

/// A child of this process, started when a case needs one: a copy of it, so that it must be used by one thread alone, which has
/// entered no parallel region of OpenMP with others (those threads are not copied) and outlives it. Of this process's other threads
/// none may be in the middle of a law. Ends with this process in whatever way that ends.
class ModuleProcess {
public:
  explicit ModuleProcess(std::chrono::milliseconds patience = module_case_patience) : patience_(patience) {}
  ModuleProcess(const ModuleProcess&) = delete;
  ModuleProcess& operator=(const ModuleProcess&) = delete;
  ~ModuleProcess() { end(); }

  /// As run_module_case; crashed where the process ended, timed_out where the patience did, and a fresh process takes the next case.
  /// Nothing if `given_up` became true and the case did not end within seconds of it. Throws std::runtime_error if no process can
  /// be started.
  std::optional<ModuleCaseResult> run(const ModuleCaseChoice&, const std::function<bool()>& given_up = {});

private:
  void start();
  int end(); ///< kills and reaps it; its status as of waitpid, 0 if there was none

  std::chrono::milliseconds patience_;
  int pid_ = -1, socket_ = -1;
};

/// The same for one case, on a thread of its own.
ModuleCaseResult run_in_a_process(const ModuleCaseChoice&, std::chrono::milliseconds patience = module_case_patience);

} // namespace kdacheck
