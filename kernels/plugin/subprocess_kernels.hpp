#pragma once
// Kernels of a worker program in any language, by a line protocol (PROTOCOL.md).

#include "plugin_kernels.hpp"

#include <string>
#include <vector>

namespace kdacheck {

/// Starts `command` (by the shell) and asks which kernels it has. Their forward and backward throw Refused,
/// KernelCrashed (also for an answer that breaks the protocol), KernelTimedOut, KernelTrespassed or KernelBrokeLaw. Safe to call from
/// several threads, each then with a process of its own. Throws PluginTrouble.
std::vector<Kernel> subprocess_kernels(const std::string& command, const PluginOptions& = {});

/// The same of the Python function `module:function`.
std::vector<Kernel> python_kernels(const std::string& module_and_function, const PluginOptions& = {});

/// The command that serves it, for a shell: KDACHECK_PYTHON, or python3.
std::string python_worker_command(const std::string& module_and_function);

} // namespace kdacheck
