#include "module_faults.hpp"

#include "../../reference/number_format.hpp"
#include "wrapped_module.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>
#include <string>

namespace kdacheck {
namespace {

using namespace modules;

struct Planted {
  ModuleFaultInfo info;
  Module (*plant)(Module);
};

std::vector<float>* found(NamedTensors& tensors, std::string_view name) {
  for (NamedTensor& tensor : tensors)
    if (tensor.name == name) return &tensor.values;
  return nullptr;
}
void fill(NamedTensors& tensors, std::string_view name, float value) {
  if (auto* values = found(tensors, name)) std::ranges::fill(*values, value);
}

const std::array planted{
    Planted{{"FineGrainedGating", "a-log-ignored", "class", "every head decays at rate 1"},
            [](Module right) { return wrapped(right, [](ModuleCall& call) { fill(call.parameters, "A_log", 0); }); }},
    Planted{{"FineGrainedGating", "dt-bias-ignored", "class", "the bias is not added to the logit"},
            [](Module right) { return wrapped(right, [](ModuleCall& call) { fill(call.parameters, "dt_bias", 0); }); }},
    Planted{{"FineGrainedGating", "log-of-rounded-alpha", "class",
             "ln alpha is taken of alpha as rounded: nothing is left where alpha rounds to 1"},
            [](Module right) {
              return wrapped(right, {}, [](ModuleResult& result, const ModuleCall&) {
                const auto& alpha = *found(result.outputs, "alpha");
                auto& log_decay = *found(result.outputs, "log_decay");
                for (std::size_t i = 0; i < alpha.size(); ++i) log_decay[i] = std::log(std::max(alpha[i], 1e-38f));
              });
            }},
    Planted{{"FineGrainedGating", "logits-in-bf16", "class", "x is rounded to bf16 before the projections"},
            [](Module right) {
              return wrapped(right, [](ModuleCall& call) {
                for (float& x : call.inputs[0].values) x = round_bf16(x);
              });
            }},
    Planted{{"FineGrainedGating", "sides-not-exchanged", "class",
             "the plain gate of a negative logit is that of its size: e^-|x| is put where it belongs for positive ones"},
            [](Module right) {
              return wrapped(right, {}, [](ModuleResult& result, const ModuleCall& call) {
                if (call.parameters.size() != 2) return; // another form
                auto &alpha = *found(result.outputs, "alpha"), &log_decay = *found(result.outputs, "log_decay");
                for (std::size_t i = 0; i < alpha.size(); ++i)
                  if (alpha[i] < 0.5f) alpha[i] = 1 - alpha[i], log_decay[i] = std::log(alpha[i]);
              });
            }},
    Planted{{"FineGrainedGating", "overflow-is-nan", "class", "what a sum that overflows gives goes into the gate: infinity less infinity"},
            [](Module right) {
              return wrapped(right, {}, [](ModuleResult& result, const ModuleCall& call) {
                const NamedTensor& x = call.inputs[0];
                NamedTensor& alpha = tensor_named(result.outputs, "alpha");
                for (std::size_t i = 0; i < x.values.size(); ++i)
                  if (std::abs(x.values[i]) > 1e30f)
                    alpha.values[i / static_cast<std::size_t>(x.shape[1]) * static_cast<std::size_t>(alpha.shape[1])] = std::nanf("");
              });
            }},
    Planted{
        {"FineGrainedGating", "second-register-of-the-first", "class", "columns 16 to 31 of a block take the parameters of the first 16"},
        [](Module right) {
          return wrapped(right, [](ModuleCall& call) {
            if (auto* bias = found(call.parameters, "dt_bias"))
              for (std::size_t i = 0; i + 32 <= bias->size(); i += 32)
                std::copy_n(bias->begin() + static_cast<std::ptrdiff_t>(i), 16, bias->begin() + static_cast<std::ptrdiff_t>(i) + 16);
          });
        }},
    Planted{{"FineGrainedGating", "many-rows-otherwise", "class", "where whole bands of rows are gated at once, the plain gate is another"},
            [](Module right) {
              return wrapped(right, {}, [](ModuleResult& result, const ModuleCall& call) {
                if (call.parameters.size() != 2 || call.rows() < 32) return;
                for (float& alpha : *found(result.outputs, "alpha")) alpha *= 0.9999f;
              });
            }},
    Planted{
        {"FineGrainedGating", "da-log-dropped", "class", "A_log receives no gradient"},
        [](Module right) { return wrapped(right, {}, {}, [](ModuleGradients& d, const ModuleCall&) { fill(d.parameters, "A_log", 0); }); }},
    Planted{{"DPLRTransition", "state-transposed", "class", "the state is read [V,K]"},
            [](Module right) {
              return wrapped(right, [](ModuleCall& call) {
                for (NamedTensor& state : call.states) transpose_memory(state);
              });
            }},
    Planted{{"DPLRTransition", "erase-without-beta", "class", "beta = 1 for what is erased and written"},
            [](Module right) { return wrapped(right, [](ModuleCall& call) { fill(call.inputs, "beta", 1); }); }},
    Planted{{"DPLRTransition", "decay-in-bf16", "class", "alpha is rounded to bf16"},
            [](Module right) {
              return wrapped(right, [](ModuleCall& call) {
                for (float& x : *found(call.inputs, "alpha")) x = round_bf16(x);
              });
            }},
    Planted{{"DPLRTransition", "dk-from-a-zero-state", "class", "the gradient of k knows nothing of the state before the call"},
            [](Module right) {
              Module module = right;
              module.backward = [right](const ModuleCall& call, const ModuleCotangents& d) {
                ModuleGradients all = right.backward(call, d);
                ModuleCall unwritten = call;
                fill(unwritten.states, "memory", 0);
                tensor_named(all.inputs, "k") = tensor_named(right.backward(unwritten, d).inputs, "k");
                return all;
              };
              return module;
            }},
    Planted{{"DPLRTransition", "dalpha-of-the-decayed-state", "class", "the gradient of alpha is that of ln alpha"},
            [](Module right) {
              return wrapped(right, {}, {}, [](ModuleGradients& d, const ModuleCall& call) {
                auto& alpha = tensor_named(d.inputs, "alpha").values;
                for (std::size_t i = 0; i < alpha.size(); ++i) alpha[i] *= tensor_named(call.inputs, "alpha").values[i];
              });
            }},
    Planted{{"DPLRTransition", "dstate-without-decay", "class", "the gradient of the state passes a token undecayed"},
            [](Module right) {
              return wrapped(right, {}, {}, [](ModuleGradients& d, const ModuleCall& call) {
                for (NamedTensor& state : d.states) // undone for the first token of each sequence
                  for (std::int64_t n = 0; n < call.sequences(); ++n) {
                    const std::int64_t first = call.cu_seqlens[static_cast<std::size_t>(n)];
                    const std::int64_t rows = state.shape[1] * state.shape[2], V = state.shape[3];
                    if (first == call.cu_seqlens[static_cast<std::size_t>(n + 1)]) continue;
                    for (std::int64_t i = 0; i < rows * V; ++i)
                      state.values[static_cast<std::size_t>(n * rows * V + i)] /=
                          tensor_named(call.inputs, "alpha").values[static_cast<std::size_t>(first * rows + i / V)];
                  }
              });
            }},
    Planted{{"DPLRTransition.general", "a-and-b-exchanged", "class", "what is read by a is erased along b"},
            [](Module right) {
              return wrapped(right, [](ModuleCall& call) { std::swap(*found(call.inputs, "a"), *found(call.inputs, "b")); });
            }},
    Planted{{"DPLRTransition.general", "read-behind-the-decay", "class", "b reads the state that has decayed already, as KDA's key does"},
            [](Module right) {
              return wrapped(right, [](ModuleCall& call) {
                auto &b = *found(call.inputs, "b"), &d = *found(call.inputs, "d");
                for (std::size_t i = 0; i < b.size(); ++i) b[i] *= d[i];
              });
            }},
    Planted{{"DPLRTransition.general", "da-without-its-sign", "class", "the gradient of a is that of -a"},
            [](Module right) {
              return wrapped(right, {}, {}, [](ModuleGradients& d, const ModuleCall&) {
                for (float& x : *found(d.inputs, "a")) x = -x;
              });
            }},
    Planted{{"ChunkwiseKDA", "carry-dropped", "class", "the state at the start is taken for zero"},
            [](Module right) { return wrapped(right, [](ModuleCall& call) { fill(call.states, "memory", 0); }); }},
    Planted{{"ChunkwiseKDA", "residual-in-bf16", "class", "v is rounded to bf16"},
            [](Module right) {
              return wrapped(right, [](ModuleCall& call) {
                for (float& x : *found(call.inputs, "v")) x = round_bf16(x);
              });
            }},
    Planted{{"ChunkwiseKDA", "dbeta-of-previous-token", "class", "the gradient of beta stands one token late"},
            [](Module right) {
              return wrapped(right, {}, {}, [](ModuleGradients& d, const ModuleCall&) {
                NamedTensor& beta = tensor_named(d.inputs, "beta");
                if (!beta.values.empty()) std::rotate(beta.values.begin(), beta.values.end() - beta.shape[1], beta.values.end());
              });
            }},
    Planted{{"ChunkwiseKDA", "absent-cotangent-is-one", "class", "a loss that says nothing of o counts as the sum of o"},
            [](Module right) {
              Module module = right;
              module.backward = [right](const ModuleCall& call, const ModuleCotangents& d) {
                ModuleCotangents said = d;
                if (said.outputs.empty()) {
                  said.outputs = {zeros("o", tensor_named(call.inputs, "v").shape)};
                  fill(said.outputs, "o", 1);
                }
                return right.backward(call, said);
              };
              return module;
            }},
    Planted{{"ChunkwiseKDA.parts", "w-without-beta", "class", "the rows of W lack their beta"},
            [](Module right) {
              return wrapped(right, {}, [](ModuleResult& result, const ModuleCall& call) {
                NamedTensor& W = tensor_named(result.outputs, "W");
                const auto K = static_cast<std::size_t>(W.shape.back());
                const auto& beta = tensor_named(call.inputs, "beta").values;
                for (std::size_t i = 0; i < W.values.size() && W.values.size() == beta.size() * K; ++i) W.values[i] /= beta[i / K];
              });
            }},
    Planted{{"ChunkwiseKDA.parts", "parts-exchanged", "class", "inter stands for intra and the other way round"},
            [](Module right) {
              return wrapped(right, {}, [](ModuleResult& result, const ModuleCall&) {
                std::swap(tensor_named(result.outputs, "inter").values, tensor_named(result.outputs, "intra").values);
              });
            }},
};

} // namespace

std::span<const ModuleFaultInfo> module_faults() {
  static const std::vector<ModuleFaultInfo> infos = [] {
    std::vector<ModuleFaultInfo> list;
    for (const Planted& fault : planted) list.push_back(fault.info);
    return list;
  }();
  return infos;
}

Module faulty_module(std::string_view fault, Module right) {
  for (const Planted& candidate : planted)
    if (candidate.info.name == fault) return candidate.plant(std::move(right));
  throw std::out_of_range("there is no module fault " + std::string(fault));
}

} // namespace kdacheck
