// Padded and batched calls are packed once for all layers: a residual connection would carry padding past them.

#include "hybrid_stages.hpp"

#include "packed_rows.hpp"

#include <algorithm>
#include <fmt/core.h>
#include <stdexcept>

namespace kdacheck::modules {
namespace {

void check_stack(const HybridStack& stack) {
  check_layer(stack.kda), check_mla(stack.mla);
  if (stack.kda.D != stack.mla.D)
    throw std::invalid_argument(fmt::format("stack: D is {} in KDA layers and {} in MLA layers", stack.kda.D, stack.mla.D));
  if (!(stack.norm_epsilon > 0)) throw std::invalid_argument(fmt::format("stack: norm_epsilon = {} must be positive", stack.norm_epsilon));
}

void check_call(const HybridStack& stack, const HybridParameters& p, const KdaLayerInput& input, const HybridState& state) {
  check_stack(stack);
  const std::size_t L = stack.pattern.size();
  if (p.size() != L) throw std::invalid_argument(fmt::format("stack: parameters of {} layers, the pattern has {}", p.size(), L));
  if (!state.layers.empty() && state.layers.size() != L)
    throw std::invalid_argument(fmt::format("stack: a state of {} layers, the pattern has {}", state.layers.size(), L));
  for (std::size_t l = 0; l < L; ++l)
    if (static_cast<std::int64_t>(p[l].norm.size()) != stack.D())
      throw std::invalid_argument(fmt::format("stack: the norm of layer {} has {} numbers, not {}", l, p[l].norm.size(), stack.D()));
  if (static_cast<std::int64_t>(input.x.size()) != input.B * input.T * stack.D())
    throw std::invalid_argument(
        fmt::format("stack: x has {} numbers, its shape [B,T,D] needs {}", input.x.size(), input.B * input.T * stack.D()));
}

/// One packed call of all layers.
struct Packed {
  PackedRows rows;
  std::vector<float> gathered;
  std::span<const float> x;
  Packed(const HybridStack& stack, const KdaLayerInput& input)
      : rows(packed_rows(input.B, input.T, input.cu_seqlens, input.mask)), gathered(rows.gathered(input.x, stack.D())),
        x(rows.all ? input.x : std::span<const float>(gathered)) {}
  std::int64_t count() const { return rows.cu_seqlens.back(); }
  KdaLayerInput kda(std::span<const float> n) const { return {.B = 1, .T = count(), .x = n, .cu_seqlens = rows.cu_seqlens, .mask = {}}; }
  MlaInput mla(std::span<const float> n) const { return {.B = 1, .T = count(), .x = n, .cu_seqlens = rows.cu_seqlens, .mask = {}}; }
};

RmsNorm norm_of(const HybridStack& stack, const HybridBlock& block) { return {stack.D(), stack.norm_epsilon, block.norm}; }

std::vector<HybridBlockState> layers_of(const HybridStack& stack, const HybridState& state) {
  return state.layers.empty() ? std::vector<HybridBlockState>(stack.pattern.size()) : state.layers;
}

/// Caches as long as they were, whatever was appended.
class Rollback {
public:
  explicit Rollback(HybridState& state) : state_(&state) {
    for (const HybridBlockState& layer : state.layers) {
      lengths_.emplace_back();
      for (const std::vector<float>& rows : layer.mla.rows) lengths_.back().push_back(rows.size());
    }
  }
  Rollback(const Rollback&) = delete;
  Rollback& operator=(const Rollback&) = delete;
  ~Rollback() {
    if (!state_) return;
    state_->layers.resize(lengths_.size());
    for (std::size_t l = 0; l < lengths_.size(); ++l) {
      auto& rows = state_->layers[l].mla.rows;
      rows.resize(lengths_[l].size());
      for (std::size_t n = 0; n < rows.size(); ++n) rows[n].resize(lengths_[l][n]);
    }
  }
  void keep() { state_ = nullptr; }

private:
  HybridState* state_;
  std::vector<std::vector<std::size_t>> lengths_;
};

std::int64_t allocated(const std::vector<float>& numbers) { return static_cast<std::int64_t>(numbers.capacity() * sizeof(float)); }

} // namespace

std::vector<Mixer> hybrid_pattern(std::int64_t layers, std::int64_t kda_per_mla) {
  if (layers < 0 || kda_per_mla < 0)
    throw std::invalid_argument(fmt::format("stack: {} layers, {} KDA layers per MLA layer must not be negative", layers, kda_per_mla));
  std::vector<Mixer> pattern;
  for (std::int64_t l = 0; l < layers; ++l) pattern.push_back(l % (kda_per_mla + 1) == kda_per_mla ? Mixer::mla : Mixer::kda);
  return pattern;
}

HybridParameters initial_parameters(const HybridStack& stack, std::uint64_t seed) {
  check_stack(stack);
  HybridParameters p;
  for (std::size_t l = 0; l < stack.pattern.size(); ++l) {
    const std::uint64_t own = seed * 4096 + l;
    p.push_back({.norm = std::vector<float>(static_cast<std::size_t>(stack.D()), 1.0f), .kda = {}, .mla = {}});
    if (stack.pattern[l] == Mixer::kda)
      p.back().kda = initial_parameters(stack.kda, own);
    else
      p.back().mla = initial_parameters(stack.mla, own);
  }
  return p;
}

std::int64_t HybridState::bytes() const {
  std::int64_t total = 0;
  for (const auto& [kda, mla] : layers)
    total += allocated(kda.q_conv) + allocated(kda.k_conv) + allocated(kda.v_conv) + allocated(kda.memory) + mla.bytes();
  return total;
}

std::vector<float> run_hybrid(const HybridStages& stages, const HybridStack& stack, const HybridParameters& p, const Kernel& kernel,
                              const KdaLayerInput& input, HybridState& state) {
  check_call(stack, p, input, state);
  const Packed packed(stack, input);
  Rollback rollback(state);
  state.layers.resize(stack.pattern.size());
  std::vector<KdaLayerState> later(stack.pattern.size());
  std::vector<float> h(packed.x.begin(), packed.x.end());
  for (std::size_t l = 0; l < stack.pattern.size(); ++l) {
    const std::vector<float> n = stages.normalise(norm_of(stack, p[l]), packed.count(), h);
    std::vector<float> mixed;
    if (stack.pattern[l] == Mixer::kda) {
      KdaLayerOutput out = kda_layer(stack.kda, p[l].kda, kernel, packed.kda(n), state.layers[l].kda);
      mixed = std::move(out.y), later[l] = std::move(out.final_state);
    } else
      mixed = mla(stack.mla, p[l].mla, packed.mla(n), state.layers[l].mla);
    h = stages.join(std::move(h), n, mixed);
  }
  for (std::size_t l = 0; l < later.size(); ++l) state.layers[l].kda = std::move(later[l]);
  rollback.keep();
  return packed.rows.scattered(h, stack.D());
}

HybridGradients run_hybrid_backward(const HybridStages& stages, const HybridStack& stack, const HybridParameters& p, const Kernel& kernel,
                                    const KdaLayerInput& input, const HybridState& before, const HybridCotangents& cotangents) {
  check_call(stack, p, input, before);
  const std::size_t L = stack.pattern.size();
  if ((!cotangents.kda.empty() && cotangents.kda.size() != L) || (!cotangents.caches.empty() && cotangents.caches.size() != L))
    throw std::invalid_argument(fmt::format("stack: cotangents of states need one entry for each of {} layers", L));
  if (!cotangents.y.empty() && cotangents.y.size() != input.x.size())
    throw std::invalid_argument(fmt::format("stack: the cotangent of y has {} numbers, not {}", cotangents.y.size(), input.x.size()));
  const Packed packed(stack, input);
  const std::vector<HybridBlockState> starts = layers_of(stack, before);

  std::vector<std::vector<float>> h{{packed.x.begin(), packed.x.end()}}, n;
  for (std::size_t l = 0; l < L; ++l) {
    n.push_back(stages.normalise(norm_of(stack, p[l]), packed.count(), h[l]));
    MlaCache cache = starts[l].mla;
    const std::vector<float> mixed = stack.pattern[l] == Mixer::kda
                                         ? kda_layer(stack.kda, p[l].kda, kernel, packed.kda(n[l]), starts[l].kda).y
                                         : mla(stack.mla, p[l].mla, packed.mla(n[l]), cache);
    h.push_back(stages.join(h[l], n[l], mixed));
  }

  HybridGradients d;
  d.parameters.resize(L), d.kda.resize(L), d.caches.resize(L);
  std::vector<float> d_h = packed.rows.gathered(cotangents.y, cotangents.y.empty() ? 0 : stack.D());
  if (packed.rows.all) d_h.assign(cotangents.y.begin(), cotangents.y.end());
  d_h.resize(h[0].size(), 0.0f);
  for (std::size_t l = L; l-- > 0;) {
    std::vector<float> d_n;
    if (stack.pattern[l] == Mixer::kda) {
      const KdaLayerState d_final = cotangents.kda.empty() ? KdaLayerState{} : cotangents.kda[l];
      KdaLayerGradients back =
          kda_layer_backward(stack.kda, p[l].kda, kernel, packed.kda(n[l]), starts[l].kda, {.y = d_h, .final_state = d_final});
      d_n = std::move(back.x), d.parameters[l].kda = std::move(back.parameters), d.kda[l] = std::move(back.state);
    } else {
      MlaGradients back =
          mla_backward(stack.mla, p[l].mla, packed.mla(n[l]), starts[l].mla,
                       {.y = d_h, .cache = cotangents.caches.empty() ? std::vector<std::vector<float>>{} : cotangents.caches[l]});
      d_n = std::move(back.x), d.parameters[l].mla = std::move(back.parameters), d.caches[l] = std::move(back.cache);
    }
    RmsNormGradients norm = rms_norm_backward(norm_of(stack, p[l]), packed.count(), h[l], d_n);
    d.parameters[l].norm = std::move(norm.weight);
    for (std::size_t i = 0; i < d_h.size(); ++i) d_h[i] = (stages.gradient_past_the_mixer ? d_h[i] : 0.0f) + norm.x[i];
  }
  d.x = packed.rows.scattered(d_h, stack.D());
  return d;
}

std::vector<float> hybrid(const HybridStack& stack, const HybridParameters& p, const Kernel& kernel, const KdaLayerInput& input,
                          HybridState& state) {
  return run_hybrid({}, stack, p, kernel, input, state);
}

HybridGradients hybrid_backward(const HybridStack& stack, const HybridParameters& p, const Kernel& kernel, const KdaLayerInput& input,
                                const HybridState& before, const HybridCotangents& cotangents) {
  return run_hybrid_backward({}, stack, p, kernel, input, before, cotangents);
}

} // namespace kdacheck::modules
