#include "layer_faults.hpp"

#include "../modules/batch_of.hpp"
#include "wrapped_module.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <stdexcept>
#include <string>

namespace kdacheck {
namespace {

using namespace modules;
using Floats = std::span<const float>;
using Cu = std::span<const std::int64_t>;

float sigmoid_of(float x) { return 1 / (1 + std::exp(-x)); }

/// RMSNorm written out, with everything that can be wrong in it as an argument.
struct NormSteps {
  bool epsilon_outside_root = false, over_all_heads = false, gate = true, swish_gate = false;
};
std::vector<float> plain_norm(const GatedNorm& norm, std::int64_t rows, Floats o, Floats gate, NormSteps steps) {
  const std::int64_t V = norm.V, group = steps.over_all_heads ? norm.heads * V : V;
  std::vector<float> z(o.size());
  for (std::size_t at = 0; at < o.size(); at += static_cast<std::size_t>(group)) {
    double sum = 0;
    for (std::int64_t j = 0; j < group; ++j)
      sum += static_cast<double>(o[at + static_cast<std::size_t>(j)]) * static_cast<double>(o[at + static_cast<std::size_t>(j)]);
    const double mean = sum / static_cast<double>(group), epsilon = static_cast<double>(norm.epsilon);
    const auto r = static_cast<float>(steps.epsilon_outside_root ? 1 / (std::sqrt(mean) + epsilon) : 1 / std::sqrt(mean + epsilon));
    for (std::int64_t j = 0; j < group; ++j) {
      const std::size_t i = at + static_cast<std::size_t>(j);
      const float open = steps.gate ? sigmoid_of(gate[i]) * (steps.swish_gate ? gate[i] : 1.0f) : 1.0f;
      z[i] = o[i] * r * norm.weight[static_cast<std::size_t>(j % V)] * open;
    }
  }
  (void)rows;
  return z;
}
LayerStages with_norm(NormSteps steps) {
  LayerStages stages;
  stages.gated_norm = [steps](const GatedNorm& norm, std::int64_t rows, Floats o, Floats gate) {
    return plain_norm(norm, rows, o, gate, steps);
  };
  return stages;
}

using Convolve = std::function<Convolved(Convolved, const ShortConvolution&, Cu, Floats u, Floats state)>;
/// Changes what a convolution gave.
LayerStages after_convolution(Convolve change) {
  LayerStages stages;
  stages.convolve = [change](const ShortConvolution& conv, Cu cu, Floats u, Floats state) {
    return change(convolve(conv, cu, u, state), conv, cu, u, state);
  };
  return stages;
}
using Unconvolve = std::function<ConvolutionGradients(ConvolutionGradients, const ShortConvolution&)>;
LayerStages after_convolution_backward(Unconvolve change) {
  LayerStages stages;
  stages.convolve_backward = [change](const ShortConvolution& conv, Cu cu, Floats u, Floats state, Floats a, Floats d_y, Floats d_state) {
    return change(convolve_backward(conv, cu, u, state, a, d_y, d_state), conv);
  };
  return stages;
}
using Unnorm = std::function<GatedNormGradients(GatedNormGradients, const GatedNorm&, Floats o, Floats gate, Floats d_z)>;
LayerStages after_norm_backward(Unnorm change) {
  LayerStages stages;
  stages.gated_norm_backward = [change](const GatedNorm& norm, std::int64_t rows, Floats o, Floats gate, Floats d_z) {
    return change(gated_norm_backward(norm, rows, o, gate, d_z), norm, o, gate, d_z);
  };
  return stages;
}

/// Rows of the history moved by one, as if the newest were the oldest.
std::vector<float> shifted(std::vector<float> state, const ShortConvolution& conv) {
  const std::int64_t block = conv.history() * conv.channels;
  for (std::int64_t at = 0; block > 0 && at < static_cast<std::int64_t>(state.size()); at += block)
    std::rotate(state.begin() + at, state.begin() + at + conv.channels, state.begin() + at + block);
  return state;
}
std::vector<float> weights_reversed(Floats weight, std::int64_t width) {
  std::vector<float> result(weight.begin(), weight.end());
  for (auto at = result.begin(); at != result.end(); at += width) std::reverse(at, at + width);
  return result;
}

struct Planted {
  LayerFaultInfo info;
  Module (*plant)(const KdaLayer&, const Kernel&);
};
Module with_stages(const KdaLayer& l, const Kernel& k, const LayerStages& s) { return kda_layer_module(l, k, s); }

const std::array planted{
    Planted{{"conv-state-shifted", "class", "the convolution's state is handed on with its newest input first"},
            [](const KdaLayer& l, const Kernel& k) {
              return with_stages(l, k, after_convolution([](Convolved c, const ShortConvolution& conv, Cu, Floats, Floats) {
                                   c.state = shifted(std::move(c.state), conv);
                                   return c;
                                 }));
            }},
    Planted{{"conv-state-ignored", "class", "every call starts its convolutions from zero"},
            [](const KdaLayer& l, const Kernel& k) {
              LayerStages stages;
              stages.convolve = [](const ShortConvolution& conv, Cu cu, Floats u, Floats) { return convolve(conv, cu, u, {}); };
              return with_stages(l, k, stages);
            }},
    Planted{{"conv-over-boundaries", "class", "convolutions read the last tokens of the sequence before"},
            [](const KdaLayer& l, const Kernel& k) {
              return with_stages(l, k, after_convolution([](Convolved c, const ShortConvolution& conv, Cu cu, Floats u, Floats state) {
                                   const std::array<std::int64_t, 2> whole{0, cu.back()};
                                   const auto first = static_cast<std::size_t>(conv.history() * conv.channels);
                                   Convolved wrong = convolve(conv, whole, u, state.empty() ? state : state.first(first));
                                   wrong.state = std::move(c.state);
                                   return wrong;
                                 }));
            }},
    Planted{{"conv-weight-reversed", "class", "the first weight meets the current token"},
            [](const KdaLayer& l, const Kernel& k) {
              LayerStages stages;
              stages.convolve = [](ShortConvolution conv, Cu cu, Floats u, Floats state) {
                const std::vector<float> turned = weights_reversed(conv.weight, conv.width);
                conv.weight = turned;
                return convolve(conv, cu, u, state);
              };
              return with_stages(l, k, stages);
            }},
    Planted{{"conv-without-swish", "class", "no activation behind the convolutions"},
            [](const KdaLayer& l, const Kernel& k) {
              return with_stages(l, k, after_convolution([](Convolved c, const ShortConvolution&, Cu, Floats, Floats) {
                                   c.y = c.a;
                                   return c;
                                 }));
            }},
    Planted{{"padding-reaches-conv-state", "class", "padded tokens pass through the convolutions and stay in their state"},
            [](const KdaLayer& l, const Kernel& k) {
              return wrapped(
                  kda_layer_module(l, k), [](ModuleCall& call) { call.mask.clear(); },
                  [](ModuleResult& result, const ModuleCall& call) {
                    NamedTensor& y = result.outputs[0];
                    for (std::size_t i = 0; i < y.values.size() && !call.mask.empty(); ++i)
                      if (!call.mask[i / static_cast<std::size_t>(y.shape[1])]) y.values[i] = 0;
                  });
            }},
    Planted{{"decode-from-transposed-state", "class", "the memory is read [V,K]"},
            [](const KdaLayer& l, const Kernel& k) {
              return wrapped(kda_layer_module(l, k), [](ModuleCall& call) {
                if (!call.states.empty()) transpose_memory(tensor_named(call.states, "memory"));
              });
            }},
    Planted{{"norm-epsilon-outside-the-root", "class", "1 / (sqrt(mean) + epsilon)"},
            [](const KdaLayer& l, const Kernel& k) { return with_stages(l, k, with_norm({.epsilon_outside_root = true})); }},
    Planted{{"norm-over-all-heads", "class", "RMSNorm over heads and channels together"},
            [](const KdaLayer& l, const Kernel& k) { return with_stages(l, k, with_norm({.over_all_heads = true})); }},
    Planted{{"output-gate-missing", "class", "no sigmoid gate behind the norm"},
            [](const KdaLayer& l, const Kernel& k) { return with_stages(l, k, with_norm({.gate = false})); }},
    Planted{{"output-gate-swish", "class", "the gate is swish, as in the layer's predecessors"},
            [](const KdaLayer& l, const Kernel& k) { return with_stages(l, k, with_norm({.swish_gate = true})); }},
    Planted{{"dt-bias-per-head", "class", "every channel of a head gets the bias of its first"},
            [](const KdaLayer& l, const Kernel& k) {
              return wrapped(kda_layer_module(l, k), [K = static_cast<std::size_t>(l.K)](ModuleCall& call) {
                for (NamedTensor& tensor : call.parameters)
                  for (std::size_t i = 0; tensor.name == "dt_bias" && i < tensor.values.size(); ++i)
                    tensor.values[i] = tensor.values[i / K * K];
              });
            }},
    Planted{{"a-log-of-head-zero", "class", "all heads decay at the first one's rate"},
            [](const KdaLayer& l, const Kernel& k) {
              return wrapped(kda_layer_module(l, k), [](ModuleCall& call) {
                for (NamedTensor& tensor : call.parameters)
                  if (tensor.name == "A_log") std::ranges::fill(tensor.values, tensor.values[0]);
              });
            }},
    Planted{{"core-in-bf16", "class", "KDA with bf16 operands where fp32 is claimed"},
            [](const KdaLayer& l, const Kernel&) {
              return kda_layer_module(l, *std::ranges::find(built_in_kernels(), std::string("cpu.chunk16.bf16"), &Kernel::name));
            }},
    Planted{{"output-gate-bias-ignored", "class", "b_g is not added"},
            [](const KdaLayer& l, const Kernel& k) {
              return wrapped(kda_layer_module(l, k),
                             [](ModuleCall& call) { std::ranges::fill(tensor_named(call.parameters, "g_bias").values, 0.0f); });
            }},
    Planted{{"batch-a-token-early", "class", "sequences of a batch after the first begin with the last token of the one before"},
            [](const KdaLayer& l, const Kernel& k) {
              return wrapped(kda_layer_module(l, k), [](ModuleCall& call) {
                if (const CallTokens tokens = batch_of(call); tokens.B > 1 && tokens.T > 1)
                  for (std::int64_t n = 1; n < tokens.B; ++n) --call.cu_seqlens[static_cast<std::size_t>(n)];
              });
            }},
    Planted{{"empty-sequence-loses-its-state", "class", "a sequence without tokens comes back with zeros"},
            [](const KdaLayer& l, const Kernel& k) {
              return wrapped(kda_layer_module(l, k), {}, [](ModuleResult& result, const ModuleCall& call) {
                for (NamedTensor& state : result.states)
                  for (std::int64_t n = 0; n < call.sequences(); ++n) {
                    const auto each = static_cast<std::int64_t>(state.values.size()) / call.sequences();
                    if (call.cu_seqlens[static_cast<std::size_t>(n)] == call.cu_seqlens[static_cast<std::size_t>(n + 1)])
                      std::fill_n(state.values.begin() + n * each, each, 0.0f);
                  }
              });
            }},
    Planted{{"dconv-weight-reversed", "class", "the gradient of the convolution's weight stands in the order of the tokens' age"},
            [](const KdaLayer& l, const Kernel& k) {
              return with_stages(l, k, after_convolution_backward([](ConvolutionGradients d, const ShortConvolution& conv) {
                                   d.weight = weights_reversed(d.weight, conv.width);
                                   return d;
                                 }));
            }},
    Planted{{"dconv-state-dropped", "class", "no gradient reaches the convolution's state"},
            [](const KdaLayer& l, const Kernel& k) {
              return with_stages(l, k, after_convolution_backward([](ConvolutionGradients d, const ShortConvolution&) {
                                   std::ranges::fill(d.state, 0.0f);
                                   return d;
                                 }));
            }},
    Planted{{"dgate-slope-missing", "class", "the output gate's gradient lacks 1 - sigmoid"},
            [](const KdaLayer& l, const Kernel& k) {
              return with_stages(l, k, after_norm_backward([](GatedNormGradients d, const GatedNorm&, Floats, Floats gate, Floats) {
                                   for (std::size_t i = 0; i < d.gate.size(); ++i) d.gate[i] /= 1 - sigmoid_of(gate[i]);
                                   return d;
                                 }));
            }},
    Planted{{"dnorm-without-projection", "class", "the gradient through RMSNorm lacks its component along o"},
            [](const KdaLayer& l, const Kernel& k) {
              return with_stages(
                  l, k, after_norm_backward([](GatedNormGradients d, const GatedNorm& norm, Floats o, Floats gate, Floats d_z) {
                    const auto V = static_cast<std::size_t>(norm.V);
                    for (std::size_t at = 0; at < o.size(); at += V) {
                      double sum = 0;
                      for (std::size_t j = 0; j < V; ++j) sum += static_cast<double>(o[at + j]) * static_cast<double>(o[at + j]);
                      const auto r = static_cast<float>(1 / std::sqrt(sum / static_cast<double>(V) + static_cast<double>(norm.epsilon)));
                      for (std::size_t j = 0; j < V; ++j) d.o[at + j] = d_z[at + j] * norm.weight[j] * sigmoid_of(gate[at + j]) * r;
                    }
                    return d;
                  }));
            }},
    Planted{{"dnorm-weight-of-last-head", "class", "the norm's weight gets the gradient of one head's share"},
            [](const KdaLayer& l, const Kernel& k) {
              return wrapped(kda_layer_module(l, k), {}, {}, [heads = static_cast<float>(l.HV)](ModuleGradients& d, const ModuleCall&) {
                for (float& x : tensor_named(d.parameters, "o_norm").values) x /= heads;
              });
            }},
    Planted{{"ddt-bias-over-channels", "class", "the bias's gradient is the sum over its head"},
            [](const KdaLayer& l, const Kernel& k) {
              return wrapped(kda_layer_module(l, k), {}, {}, [K = static_cast<std::size_t>(l.K)](ModuleGradients& d, const ModuleCall&) {
                for (NamedTensor& tensor : d.parameters)
                  for (std::size_t at = 0; tensor.name == "dt_bias" && at < tensor.values.size(); at += K) {
                    float sum = 0;
                    for (std::size_t i = at; i < at + K; ++i) sum += tensor.values[i];
                    std::fill_n(tensor.values.begin() + static_cast<std::int64_t>(at), K, sum);
                  }
              });
            }},
};

} // namespace

std::span<const LayerFaultInfo> layer_faults() {
  static const std::vector<LayerFaultInfo> infos = [] {
    std::vector<LayerFaultInfo> list;
    for (const Planted& fault : planted) list.push_back(fault.info);
    return list;
  }();
  return infos;
}

Module faulty_layer(std::string_view fault, const KdaLayer& layer, const Kernel& kernel) {
  for (const Planted& candidate : planted)
    if (candidate.info.name == fault) return candidate.plant(layer, kernel);
  throw std::out_of_range("there is no layer fault " + std::string(fault));
}

} // namespace kdacheck
