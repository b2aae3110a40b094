#include "hybrid_faults.hpp"

#include "wrapped_module.hpp"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>

namespace kdacheck {
namespace {

using namespace modules;
using Floats = std::span<const float>;

/// "layers.I.name" to "layers.J.name", J = I + by, around the stack's end.
void shift_layers(NamedTensors& tensors, std::size_t layers, std::size_t by) {
  for (NamedTensor& tensor : tensors)
    for (std::size_t l = 0; l < layers; ++l)
      if (tensor.name.starts_with(layer_prefix(l))) {
        tensor.name = layer_prefix((l + by) % layers) + tensor.name.substr(layer_prefix(l).size());
        break;
      }
}

/// The right layers in the wrong order: the last before the first.
Module shifted(const HybridStack& stack, const Kernel& kernel, std::int64_t capacity) {
  HybridStack other = stack;
  const std::size_t L = stack.pattern.size();
  std::rotate(other.pattern.begin(), other.pattern.end() - 1, other.pattern.end());
  const Module right = hybrid_module(other, kernel, capacity);
  const auto in_order = [stack, L](NamedTensors tensors) { // as the right stack lists them
    shift_layers(tensors, L, L - 1);
    NamedTensors sorted;
    for (std::size_t l = 0; l < L; ++l)
      for (NamedTensor& tensor : tensors)
        if (tensor.name.starts_with(layer_prefix(l))) sorted.push_back(tensor);
    return sorted;
  };
  const auto moved = [L](const ModuleCall& call) {
    ModuleCall changed = call;
    shift_layers(changed.parameters, L, 1), shift_layers(changed.states, L, 1);
    return changed;
  };
  Module wrong = right;
  wrong.forward = [=](const ModuleCall& call) {
    ModuleResult result = right.forward(moved(call));
    result.states = in_order(std::move(result.states));
    return result;
  };
  wrong.backward = [=](const ModuleCall& call, const ModuleCotangents& d) {
    ModuleCotangents cotangents = d;
    shift_layers(cotangents.states, L, 1);
    ModuleGradients result = right.backward(moved(call), cotangents);
    result.parameters = in_order(std::move(result.parameters)), result.states = in_order(std::move(result.states));
    return result;
  };
  return wrong;
}

void zero(NamedTensors& tensors, std::string_view ending) {
  for (NamedTensor& tensor : tensors)
    if (tensor.name.ends_with(ending)) std::ranges::fill(tensor.values, 0.0f);
}

struct Planted {
  HybridFaultInfo info;
  Module (*plant)(const HybridStack&, const Kernel&, std::int64_t capacity);
};
Module joined_by(std::vector<float> (*join)(std::vector<float>, const std::vector<float>&, const std::vector<float>&), const HybridStack& s,
                 const Kernel& k, std::int64_t c) {
  HybridStages stages;
  stages.join = join;
  return hybrid_module(s, k, c, stages);
}

const std::array planted{
    Planted{{"pattern-shifted", "class", "the last layer runs first, each with its own parameters"}, shifted},
    Planted{{"residual-dropped", "class", "a block hands on what its mixer gave alone"},
            [](const HybridStack& s, const Kernel& k, std::int64_t c) {
              return joined_by([](std::vector<float>, const std::vector<float>&, const std::vector<float>& mixed) { return mixed; }, s, k,
                               c);
            }},
    Planted{{"residual-of-normalised", "class", "the residual connection starts behind the norm"},
            [](const HybridStack& s, const Kernel& k, std::int64_t c) {
              return joined_by(
                  [](std::vector<float> h, const std::vector<float>& n, const std::vector<float>& mixed) {
                    for (std::size_t i = 0; i < h.size(); ++i) h[i] = n[i] + mixed[i];
                    return h;
                  },
                  s, k, c);
            }},
    Planted{{"norm-missing", "class", "mixers see h as it is"},
            [](const HybridStack& s, const Kernel& k, std::int64_t c) {
              HybridStages stages;
              stages.normalise = [](const RmsNorm&, std::int64_t, Floats x) { return std::vector<float>(x.begin(), x.end()); };
              return hybrid_module(s, k, c, stages);
            }},
    Planted{{"norm-of-first-layer", "class", "all blocks use the first one's norm"},
            [](const HybridStack& s, const Kernel& k, std::int64_t c) {
              return wrapped(hybrid_module(s, k, c), [L = s.pattern.size()](ModuleCall& call) {
                const std::vector<float> first = tensor_named(call.parameters, "layers.0.norm").values;
                for (std::size_t l = 0; l < L; ++l) tensor_named(call.parameters, layer_prefix(l) + "norm").values = first;
              });
            }},
    Planted{{"mla-cache-not-appended", "class", "MLA layers forget the call's tokens"},
            [](const HybridStack& s, const Kernel& k, std::int64_t c) {
              return wrapped(hybrid_module(s, k, c), {}, [](ModuleResult& result, const ModuleCall& call) {
                for (NamedTensor& state : result.states)
                  if (state.name.ends_with(".latent") || state.name.ends_with(".length")) {
                    if (call.states.empty())
                      std::ranges::fill(state.values, 0.0f);
                    else
                      state.values = tensor_named(call.states, state.name).values;
                  }
              });
            }},
    Planted{{"kda-memory-not-handed-on", "class", "KDA layers start every call from an empty memory"},
            [](const HybridStack& s, const Kernel& k, std::int64_t c) {
              return wrapped(hybrid_module(s, k, c), [](ModuleCall& call) { zero(call.states, ".memory"); });
            }},
    Planted{{"states-of-neighbour", "class", "the first two KDA layers read each other's memory"},
            [](const HybridStack& s, const Kernel& k, std::int64_t c) {
              return wrapped(hybrid_module(s, k, c), [](ModuleCall& call) {
                std::vector<NamedTensor*> memories;
                for (NamedTensor& state : call.states)
                  if (state.name.ends_with(".memory")) memories.push_back(&state);
                if (memories.size() > 1) std::swap(memories[0]->values, memories[1]->values);
              });
            }},
    Planted{{"residual-gradient-dropped", "class", "no gradient goes past a mixer"},
            [](const HybridStack& s, const Kernel& k, std::int64_t c) {
              HybridStages stages;
              stages.gradient_past_the_mixer = false;
              return hybrid_module(s, k, c, stages);
            }},
    Planted{{"dcache-dropped", "class", "no gradient reaches the caches of earlier calls"},
            [](const HybridStack& s, const Kernel& k, std::int64_t c) {
              return wrapped(hybrid_module(s, k, c), {}, {}, [](ModuleGradients& d, const ModuleCall&) { zero(d.states, ".latent"); });
            }},
};

} // namespace

std::span<const HybridFaultInfo> hybrid_faults() {
  static const std::vector<HybridFaultInfo> infos = [] {
    std::vector<HybridFaultInfo> list;
    for (const Planted& fault : planted) list.push_back(fault.info);
    return list;
  }();
  return infos;
}

Module faulty_hybrid(std::string_view fault, const HybridStack& stack, const Kernel& kernel, std::int64_t capacity) {
  for (const Planted& candidate : planted)
    if (candidate.info.name == fault) return candidate.plant(stack, kernel, capacity);
  throw std::out_of_range("there is no stack fault " + std::string(fault));
}

} // namespace kdacheck
