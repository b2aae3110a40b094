#include "kernel_sources.hpp"

#include "../kernels/faults/correct_variants.hpp"
#include "../kernels/faults/faults.hpp"
#include "../kernels/faults/legal_roundings.hpp"
#include "../kernels/plugin/shell_word.hpp"
#include "../kernels/plugin/subprocess_kernels.hpp"
#include "../properties/selection.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <set>

namespace kdacheck {

std::string replay_prefix(const KernelSources& sources) {
  std::string environment, options;
  const auto repeat = [&](const char* option, const std::vector<std::string>& values) {
    for (const std::string& value : values) options += fmt::format(" {} {}", option, shell_word(value));
  };
  const auto carry = [&](const char* variable) {
    if (const char* value = std::getenv(variable); value && *value) environment += fmt::format("{}={} ", variable, shell_word(value));
  };
  if (!sources.functions.empty()) carry("KDACHECK_PYTHON"), carry("PYTHONPATH");
  if (sources.any()) carry("KDACHECK_WORKER_GIB");
  repeat("--plugin", sources.plugins);
  repeat("--exec", sources.commands);
  repeat("--python", sources.functions);
  if (!options.empty() && sources.call_timeout != KernelSources{}.call_timeout)
    options += fmt::format(" --call-timeout {}", sources.call_timeout);
  if (!options.empty() && sources.start_timeout != KernelSources{}.start_timeout)
    options += fmt::format(" --start-timeout {}", sources.start_timeout);
  return environment + "./kdacheck replay" + options;
}

std::vector<Kernel> kernels_of(const KernelSources& sources) {
  const auto milliseconds = [](double seconds) {
    return std::chrono::milliseconds(static_cast<std::int64_t>(std::min(seconds, 1e6) * 1e3));
  };
  const PluginOptions options{.patience = milliseconds(sources.call_timeout),
                              .start_patience = milliseconds(sources.start_timeout),
                              .keep_standard_error = sources.keep_standard_error};
  std::vector<Kernel> kernels;
  const auto take = [&](std::vector<Kernel> more) { std::move(more.begin(), more.end(), std::back_inserter(kernels)); };
  try {
    for (const std::string& path : sources.plugins) take(plugin_kernels(path, options));
    for (const std::string& command : sources.commands) take(subprocess_kernels(command, options));
    for (const std::string& function : sources.functions) take(python_kernels(function, options));
  } catch (const PluginTrouble& trouble) {
    if (trouble.fault == PluginTrouble::Fault::source) throw UsageError(trouble.what());
    throw;
  }
  if (sources.plugins.empty() && sources.commands.empty() && sources.functions.empty())
    kernels.assign(built_in_kernels().begin(), built_in_kernels().end());
  std::set<std::string> names;
  for (const Kernel& kernel : kernels)
    if (!names.insert(kernel.name).second) throw UsageError("two kernels are named '" + kernel.name + "'");
  return kernels;
}

void append_kernels_of_gate_power(std::vector<Kernel>& kernels, std::string_view name) {
  if (name.starts_with("fault."))
    for (const FaultInfo& info : planted_kernels()) kernels.push_back(faulty_kernel(info));
  if (name.starts_with("legal."))
    for (const LegalRounding& legal : legal_roundings()) kernels.push_back(legal_kernel(legal));
  if (name.starts_with("correct.")) kernels.insert(kernels.end(), correct_variants().begin(), correct_variants().end());
}

} // namespace kdacheck
