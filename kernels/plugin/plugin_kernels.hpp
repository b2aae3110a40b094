#pragma once
// Kernels of foreign shared libraries, each call made in a child process.

#include "../kernel.hpp"

#include <chrono>
#include <string>
#include <vector>

namespace kdacheck {

struct PluginOptions {
  std::chrono::milliseconds patience{20000};        ///< for one call; longer is a time-out
  std::chrono::milliseconds start_patience{120000}; ///< for a process to start: load, import, find its device
  bool keep_standard_error = false;                 ///< let the library's standard error through
};

/// A library or worker that cannot be used, in one sentence.
struct PluginTrouble : std::runtime_error {
  enum class Fault { source, machine, slow }; ///< what was named is wrong; the machine lacks something; it did not start in time
  explicit PluginTrouble(const std::string& sentence, Fault whose = Fault::source) : std::runtime_error(sentence), fault(whose) {}
  Fault fault;
};

/// Loads the library at `path` in a child process and returns a kernel for each that it exports. Their forward and
/// backward throw Refused, KernelCrashed, KernelTimedOut or KernelTrespassed (kernel.hpp); after a crash the next call
/// gets a fresh process. Safe to call from several threads, each then with a process of its own. Throws PluginTrouble.
std::vector<Kernel> plugin_kernels(const std::string& path, const PluginOptions& = {});

} // namespace kdacheck
