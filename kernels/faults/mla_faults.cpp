#include "mla_faults.hpp"

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
using Floats = std::span<const float>;

/// Softmax attention written out, with everything that can be wrong in it as an argument.
struct AttentionSteps {
  std::int64_t mask = 0; ///< tokens seen beyond a query's own; -1: not even its own, but for the first
  bool maximum = true, scale = true, past = true, bf16_weights = false;
};
std::vector<float> plain_attention(const HeadAttention& a, AttentionSteps steps) {
  const std::int64_t M = a.past + a.rows;
  std::vector<float> o(static_cast<std::size_t>(a.rows * a.V), 0.0f), weights(static_cast<std::size_t>(M));
  for (std::int64_t t = 0; t < a.rows; ++t) {
    const std::int64_t first = steps.past ? 0 : a.past, last = std::clamp<std::int64_t>(a.past + t + 1 + steps.mask, first + 1, M);
    float top = -INFINITY, total = 0;
    for (std::int64_t i = first; i < last; ++i) {
      float& score = weights[static_cast<std::size_t>(i)] = 0;
      for (std::int64_t j = 0; j < a.K; ++j)
        score += a.q[static_cast<std::size_t>(t * a.K + j)] * a.k[static_cast<std::size_t>(i * a.K + j)];
      if (steps.scale) score *= a.scale;
      top = std::max(top, score);
    }
    for (std::int64_t i = first; i < last; ++i) {
      float& weight = weights[static_cast<std::size_t>(i)];
      weight = std::exp(steps.maximum ? weight - top : weight);
      total += weight;
    }
    for (std::int64_t i = first; i < last; ++i) {
      float weight = weights[static_cast<std::size_t>(i)] / total;
      if (steps.bf16_weights) weight = round_bf16(weight);
      for (std::int64_t j = 0; j < a.V; ++j)
        o[static_cast<std::size_t>(t * a.V + j)] += weight * a.v[static_cast<std::size_t>(i * a.V + j)];
    }
  }
  return o;
}

MlaStages attending(AttentionSteps steps) {
  MlaStages stages;
  stages.attend = [steps](const HeadAttention& a) { return plain_attention(a, steps); };
  return stages;
}
MlaStages attending_backward(void (*change)(HeadAttentionGradients&, const HeadAttention&, Floats d_o)) {
  MlaStages stages;
  stages.attend_backward = [change](const HeadAttention& a, Floats d_o) {
    HeadAttentionGradients d = causal_attention_backward(a, d_o);
    change(d, a, d_o);
    return d;
  };
  return stages;
}

struct Planted {
  MlaFaultInfo info;
  Module (*plant)(const Mla&, std::int64_t capacity);
};

const std::array planted{
    Planted{{"mask-one-token-late", "class", "a query sees the token behind it"},
            [](const Mla& m, std::int64_t c) { return mla_module(m, c, attending({.mask = 1})); }},
    Planted{{"mask-one-token-early", "class", "a query does not see its own token"},
            [](const Mla& m, std::int64_t c) { return mla_module(m, c, attending({.mask = -1})); }},
    Planted{{"scale-missing", "class", "scores are not scaled"},
            [](const Mla& m, std::int64_t c) { return mla_module(m, c, attending({.scale = false})); }},
    Planted{{"scale-without-shared-channels", "class", "the scale is K^{-1/2}"},
            [](const Mla& m, std::int64_t c) {
              MlaStages stages;
              stages.attend = [K = m.K](HeadAttention a) {
                a.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(K)));
                return causal_attention(a);
              };
              return mla_module(m, c, stages);
            }},
    Planted{{"softmax-without-maximum", "class", "e^s overflows for large scores"},
            [](const Mla& m, std::int64_t c) { return mla_module(m, c, attending({.maximum = false})); }},
    Planted{{"weights-in-bf16", "class", "attention weights rounded to bf16 where fp32 is claimed"},
            [](const Mla& m, std::int64_t c) { return mla_module(m, c, attending({.bf16_weights = true})); }},
    Planted{{"cache-not-read", "class", "queries attend to the call's own tokens alone"},
            [](const Mla& m, std::int64_t c) { return mla_module(m, c, attending({.past = false})); }},
    Planted{{"cache-not-appended", "class", "the cache stays as it was given"},
            [](const Mla& m, std::int64_t c) {
              return wrapped(mla_module(m, c), {}, [m, c](ModuleResult& result, const ModuleCall& call) {
                MlaCache before = mla_cache(m, call.states);
                before.rows.resize(static_cast<std::size_t>(call.sequences()));
                result.states = named_cache(m, c, before);
              });
            }},
    Planted{{"padding-reaches-cache", "class", "padded tokens are appended to the cache"},
            [](const Mla& m, std::int64_t c) {
              return wrapped(
                  mla_module(m, c), [](ModuleCall& call) { call.mask.clear(); },
                  [](ModuleResult& result, const ModuleCall& call) {
                    NamedTensor& y = result.outputs[0];
                    for (std::size_t i = 0; i < y.values.size() && !call.mask.empty(); ++i)
                      if (!call.mask[i / static_cast<std::size_t>(y.shape[1])]) y.values[i] = 0;
                  });
            }},
    Planted{{"latent-norm-missing", "class", "the latent is cached as projected"},
            [](const Mla& m, std::int64_t c) {
              MlaStages stages;
              stages.normalise = [](const RmsNorm&, std::int64_t, Floats x) { return std::vector<float>(x.begin(), x.end()); };
              return mla_module(m, c, stages);
            }},
    Planted{{"latent-norm-weight-ignored", "class", "kv_norm is taken for one"},
            [](const Mla& m, std::int64_t c) {
              return wrapped(mla_module(m, c),
                             [](ModuleCall& call) { std::ranges::fill(tensor_named(call.parameters, "kv_norm").values, 1.0f); });
            }},
    Planted{{"cache-of-previous-sequence", "class", "packed sequences attend to the cache of the first"},
            [](const Mla& m, std::int64_t c) {
              return wrapped(mla_module(m, c), [](ModuleCall& call) {
                for (NamedTensor& state : call.states)
                  for (std::size_t i = 0, each = state.values.size() / static_cast<std::size_t>(state.shape[0]); i < state.values.size();
                       ++i)
                    state.values[i] = state.values[i % each];
              });
            }},
    Planted{{"dsoftmax-without-mean", "class", "the gradient through softmax lacks sum_j p_j dp_j"},
            [](const Mla& m, std::int64_t c) {
              return mla_module(m, c, attending_backward([](HeadAttentionGradients& d, const HeadAttention& a, Floats d_o) {
                                  // dq_t gains scale (p . dp) sum_j p_j k_j = scale (o . d_o) (attention of the keys themselves)
                                  HeadAttention keys = a;
                                  keys.V = a.K, keys.v = a.k;
                                  const std::vector<float> o = causal_attention(a), mean_key = causal_attention(keys);
                                  for (std::int64_t t = 0; t < a.rows; ++t) {
                                    float along = 0;
                                    for (std::int64_t j = 0; j < a.V; ++j)
                                      along += o[static_cast<std::size_t>(t * a.V + j)] * d_o[static_cast<std::size_t>(t * a.V + j)];
                                    for (std::int64_t j = 0; j < a.K; ++j)
                                      d.q[static_cast<std::size_t>(t * a.K + j)] +=
                                          a.scale * along * mean_key[static_cast<std::size_t>(t * a.K + j)];
                                  }
                                }));
            }},
    Planted{{"dscale-missing", "class", "gradients of queries lack the scale"},
            [](const Mla& m, std::int64_t c) {
              return mla_module(m, c, attending_backward([](HeadAttentionGradients& d, const HeadAttention& a, Floats) {
                                  for (float& x : d.q) x /= a.scale;
                                }));
            }},
    Planted{{"dcache-dropped", "class", "no gradient reaches the tokens of earlier calls"},
            [](const Mla& m, std::int64_t c) {
              return wrapped(mla_module(m, c), {}, {}, [](ModuleGradients& d, const ModuleCall&) {
                for (NamedTensor& state : d.states) std::ranges::fill(state.values, 0.0f);
              });
            }},
    Planted{{"dshared-key-of-one-head", "class", "shared channels of the key receive the gradient of one head's share"},
            [](const Mla& m, std::int64_t c) {
              return wrapped(mla_module(m, c), {}, {}, [H = static_cast<float>(m.H)](ModuleGradients& d, const ModuleCall&) {
                for (NamedTensor& tensor : d.parameters)
                  for (std::size_t i = 0; tensor.name == "k_shared" && i < tensor.values.size(); ++i) tensor.values[i] /= H;
              });
            }},
};

} // namespace

std::span<const MlaFaultInfo> mla_faults() {
  static const std::vector<MlaFaultInfo> infos = [] {
    std::vector<MlaFaultInfo> list;
    for (const Planted& fault : planted) list.push_back(fault.info);
    return list;
  }();
  return infos;
}

Module faulty_mla(std::string_view fault, const Mla& mla, std::int64_t capacity) {
  for (const Planted& candidate : planted)
    if (candidate.info.name == fault) return candidate.plant(mla, capacity);
  throw std::out_of_range("there is no MLA fault " + std::string(fault));
}

} // namespace kdacheck
