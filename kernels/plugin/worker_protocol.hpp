#pragma once
// The lines that a worker program answers (PROTOCOL.md), taken apart. A line may hold any bytes.

#include "../contract.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace kdacheck::plugin {

struct DescribedKernel {
  std::string name, summary;
  Contract contract;
  bool backward = false;
};

/// The answer to hello: at least one kernel. `label` names the worker in errors. Throws PluginTrouble.
std::vector<DescribedKernel> read_hello(std::string_view line, const std::string& label);

/// The answer to a call that was made or refused. Both empty: done. A trespass counts whatever else is said.
struct WorkerAnswer {
  std::string refusal, trespass;
};

/// Throws KernelCrashed for an error and for whatever is no answer, with the worker's sentence where it gave one.
WorkerAnswer read_answer(std::string_view line);

} // namespace kdacheck::plugin
