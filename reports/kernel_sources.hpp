#pragma once
// The kernels a command works on: built in, or brought along by options.

#include "../kernels/kernel.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace kdacheck {

/// Foreign kernels; if any is given, the built-in ones are left out.
struct KernelSources {
  std::vector<std::string> plugins;   ///< shared libraries (kdacheck_plugin.h)
  std::vector<std::string> commands;  ///< worker programs (PROTOCOL.md)
  std::vector<std::string> functions; ///< module:function
  double call_timeout = 20;           ///< seconds for one call
  double start_timeout = 120;         ///< seconds for a process to start
  bool keep_standard_error = false;
  bool any() const { return !plugins.empty() || !commands.empty() || !functions.empty(); }
};

/// What a replay token is appended to so that a shell runs the case again on the same kernels: "./kdacheck replay", with the
/// options that name foreign kernels, their limits where they are not the usual ones and, for Python functions, the environment by which
/// they were found.
std::string replay_prefix(const KernelSources&);

/// Throws UsageError for a source that cannot be used or a name that two kernels share, PluginTrouble if the machine lacks
/// what a source needs or a source does not start in time.
std::vector<Kernel> kernels_of(const KernelSources&);

/// What gate-power judges beside the kernels, where a name is one of these: "fault.NAME", "legal.NAME", "correct.NAME".
void append_kernels_of_gate_power(std::vector<Kernel>&, std::string_view name);

} // namespace kdacheck
