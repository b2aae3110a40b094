#pragma once
// The one interface of the modules, as kernel.hpp is that of kernels: tokens of packed sequences in, tokens and states out,
// and the gradients of both. It is what the gate, the planted faults and golden tensors see; programs that use a module
// call its own header, which copies nothing.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kdacheck::modules {

/// A row-major tensor with its name and extents.
struct NamedTensor {
  std::string name; ///< "q_proj"
  std::vector<std::int64_t> shape;
  std::vector<float> values;
  bool operator==(const NamedTensor&) const = default;
};
using NamedTensors = std::vector<NamedTensor>;

/// Numbers in a tensor of that shape.
std::int64_t element_count(std::span<const std::int64_t> shape);

/// A tensor of zeros.
NamedTensor zeros(std::string name, std::vector<std::int64_t> shape);

/// The tensor of that name. Throws std::out_of_range with the name if there is none.
const NamedTensor& tensor_named(const NamedTensors&, std::string_view name);
NamedTensor& tensor_named(NamedTensors&, std::string_view name);

/// Tokens of N sequences one after the other, R in all, and what the module knows and remembers.
struct ModuleCall {
  std::vector<std::int64_t> cu_seqlens; ///< [N+1], 0 = first <= ... <= last = R
  NamedTensors inputs;                  ///< [R,...] each
  NamedTensors parameters;              ///< the same for all tokens
  NamedTensors states;                  ///< [N,...] each, before the first token; no tensors: the module's fresh state
  std::vector<std::uint8_t> mask{};     ///< [R], 0 for rows that are padding: without influence, outputs 0; empty: none is
  std::int64_t sequences() const { return static_cast<std::int64_t>(cu_seqlens.size()) - 1; }
  std::int64_t rows() const { return cu_seqlens.empty() ? 0 : cu_seqlens.back(); }
};

/// What a call gives: states after the last token of each sequence, which the next call may start from.
struct ModuleResult {
  NamedTensors outputs; ///< [R,...] each
  NamedTensors states;  ///< [N,...] each
};

/// What a loss sends back, in the shapes of ModuleResult; tensors that are absent count as zero.
struct ModuleCotangents {
  NamedTensors outputs, states;
};

/// Gradients under the names and in the shapes of the call's tensors.
struct ModuleGradients {
  NamedTensors inputs, parameters, states;
};

/// Forward and backward throw std::invalid_argument with one sentence for a call that contradicts itself or the module.
/// They may be called from several threads at once.
struct Module {
  std::string name;    ///< "KimiDeltaAttention"
  std::string summary; ///< one line: sizes and form
  std::function<ModuleResult(const ModuleCall&)> forward;
  std::function<ModuleGradients(const ModuleCall&, const ModuleCotangents&)> backward; ///< empty: none
};

} // namespace kdacheck::modules
