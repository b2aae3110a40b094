#include "wrapped_module.hpp"

namespace kdacheck {

using namespace modules;

Module wrapped(Module right, ChangeCall before, ChangeResult after, ChangeGradients gradients) {
  Module wrong = right;
  wrong.forward = [=](const ModuleCall& call) {
    ModuleCall changed = call;
    if (before) before(changed);
    ModuleResult result = right.forward(changed);
    if (after) after(result, call);
    return result;
  };
  if (!right.backward) return wrong;
  wrong.backward = [=](const ModuleCall& call, const ModuleCotangents& d) {
    ModuleCall changed = call;
    if (before) before(changed);
    ModuleGradients result = right.backward(changed, d);
    if (gradients) gradients(result, call);
    return result;
  };
  return wrong;
}

void transpose_memory(NamedTensor& memory) {
  const std::int64_t K = memory.shape[2], V = memory.shape[3];
  const std::vector<float> before = memory.values;
  for (std::size_t at = 0; at < before.size(); at += static_cast<std::size_t>(K * V))
    for (std::int64_t i = 0; i < K; ++i)
      for (std::int64_t j = 0; j < V; ++j)
        memory.values[at + static_cast<std::size_t>(i * V + j)] = before[at + static_cast<std::size_t>(j * K + i)];
}

} // namespace kdacheck
