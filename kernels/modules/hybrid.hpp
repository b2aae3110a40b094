#pragma once
// HybridAttention: a stack of KimiDeltaAttention layers with a latent attention (MLA) layer behind every few of them, each in a
// pre-norm residual block; forward, backward, prefill and decode.
//
//   h <- h + mixer_l(RMSNorm_l(h)),  l = 0, 1, ...;   x is the first h, y the last
//
// Source: Kimi Linear technical report (arXiv 2510.26692), section 4: three KDA layers to one MLA layer without position
// encoding. The channel mixers (feed-forward or mixture of experts) that alternate with these blocks in the published model,
// its embedding and its last norm are not part of it. Memory is in bytes, nothing else has a unit.

#include "kda_layer.hpp"
#include "mla.hpp"

#include <cstdint>
#include <vector>

namespace kdacheck::modules {

enum class Mixer : std::uint8_t { kda, mla };

/// `layers` layers, every (kda_per_mla + 1)-th of them MLA: 3 gives kda kda kda mla kda ..., 0 MLA alone. Throws
/// std::invalid_argument for negative numbers.
std::vector<Mixer> hybrid_pattern(std::int64_t layers, std::int64_t kda_per_mla = 3);

struct HybridStack {
  std::vector<Mixer> pattern = hybrid_pattern(4); ///< may be any
  KdaLayer kda;                                   ///< of all KDA layers
  Mla mla;                                        ///< of all MLA layers; D as in kda
  float norm_epsilon = 1e-5f;                     ///< of the blocks' own norms
  std::int64_t D() const { return kda.D; }
};

/// Of one block; of kda and mla the one that its mixer needs.
struct HybridBlock {
  std::vector<float> norm; ///< [D]
  KdaLayerParameters kda;
  MlaParameters mla;
};
using HybridParameters = std::vector<HybridBlock>; ///< one per layer; gradients have the same form

/// Each layer's own initial parameters from (seed, layer), norms one. Throws std::invalid_argument for sizes out of range.
HybridParameters initial_parameters(const HybridStack&, std::uint64_t seed);

/// What decoding goes on from.
struct HybridBlockState {
  KdaLayerState kda;
  MlaCache mla;
};
struct HybridState {
  std::vector<HybridBlockState> layers; ///< empty: a fresh batch
  std::int64_t bytes() const;           ///< that its numbers have allocated
};

/// x [B,T,D], packed or padded as KdaLayerInput says, to y [B,T,D] in fp32; the state goes on to the last token. Throws
/// std::invalid_argument, with a sentence and the state unchanged, for what does not fit, NaN or infinity on the way;
/// Refused where the kernel refuses.
std::vector<float> hybrid(const HybridStack&, const HybridParameters&, const Kernel&, const KdaLayerInput&, HybridState&);

/// What a loss sends back; empty: zero.
struct HybridCotangents {
  std::span<const float> y;                            ///< [B,T,D]
  std::vector<KdaLayerState> kda;                      ///< one per layer, of the state behind the call
  std::vector<std::vector<std::vector<float>>> caches; ///< one per layer, as MlaCotangents has them
};

struct HybridGradients {
  std::vector<float> x; ///< [B,T,D]
  HybridParameters parameters;
  std::vector<KdaLayerState> kda; ///< one per layer, of the state before the call
  std::vector<std::vector<std::vector<float>>> caches;
};

/// Gradients of `hybrid` called with that state, which stays as it is. Throws as `hybrid` does.
HybridGradients hybrid_backward(const HybridStack&, const HybridParameters&, const Kernel&, const KdaLayerInput&, const HybridState& before,
                                const HybridCotangents&);

} // namespace kdacheck::modules
