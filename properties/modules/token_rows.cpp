#include "token_rows.hpp"

namespace kdacheck {

using namespace modules;

NamedTensors rows_of(const NamedTensors& tensors, std::int64_t first, std::int64_t last) {
  NamedTensors result;
  for (const NamedTensor& tensor : tensors) {
    NamedTensor part{tensor.name, tensor.shape, {}};
    part.shape[0] = last - first;
    const std::int64_t width = element_count(std::span(tensor.shape).subspan(1));
    part.values.assign(tensor.values.begin() + first * width, tensor.values.begin() + last * width);
    result.push_back(std::move(part));
  }
  return result;
}

NamedTensors joined(const std::vector<NamedTensors>& parts) {
  NamedTensors result;
  for (const NamedTensors& part : parts) {
    if (result.empty()) {
      result = part;
      continue;
    }
    for (std::size_t i = 0; i < part.size(); ++i) {
      result[i].shape[0] += part[i].shape[0];
      result[i].values.insert(result[i].values.end(), part[i].values.begin(), part[i].values.end());
    }
  }
  return result;
}

ModuleCall part_of(const ModuleCall& call, std::int64_t n, std::int64_t first, std::int64_t last, NamedTensors states) {
  const std::int64_t start = call.cu_seqlens[static_cast<std::size_t>(n)];
  return {.cu_seqlens = {0, last - first},
          .inputs = rows_of(call.inputs, start + first, start + last),
          .parameters = call.parameters,
          .states = std::move(states)};
}

NamedTensors state_of(const NamedTensors& states, std::int64_t n) { return states.empty() ? NamedTensors{} : rows_of(states, n, n + 1); }

} // namespace kdacheck
