#pragma once
// Any kernel of the suite (or a plug-in) in the middle of a layer: fp32 tensors in and out, whatever formats, state layout
// and normalisation the kernel's contract names. ln alpha is in nats per token, nothing else has a unit.

#include "../kernel.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace kdacheck::modules {

/// R tokens of N packed sequences: q, k [R,H,K]; v [R,HV,V]; ln alpha [R,HV,K]; beta [R,HV];
/// state [N,HV,K,V] or empty (zero). HV is a multiple of H.
struct CoreTokens {
  std::int64_t H = 1, HV = 1, K = 1, V = 1;
  float scale = 1;
  bool normalise = true;                    ///< q and k divided by |.| = sqrt(sum x^2 + 1e-6) first
  std::span<const std::int64_t> cu_seqlens; ///< [N+1]
  std::span<const float> q, k, v, log_decay, beta, state;
  std::int64_t rows() const { return cu_seqlens.back(); }
  std::int64_t sequences() const { return static_cast<std::int64_t>(cu_seqlens.size()) - 1; }
};

struct CoreResult {
  std::vector<float> o;     ///< [R,HV,V]
  std::vector<float> state; ///< [N,HV,K,V] after the last tokens
};

/// o_t = S_t^T (scale q_t) by the kernel. Numbers are rounded to the formats of the
/// contract. Sequences of equal length go as a batch, others packed. Throws Refused with the kernel's sentence, and
/// std::invalid_argument for a kernel that takes no log decay, no value of beta or no KDA.
CoreResult core_forward(const Kernel&, const CoreTokens&);

struct CoreGradients {
  std::vector<float> q, k, v, log_decay, beta, state; ///< state is empty where the call had none
};

/// For the cotangents of o and of the state after the last tokens (empty: zero). Throws besides std::invalid_argument for a
/// kernel without a backward pass.
CoreGradients core_backward(const Kernel&, const CoreTokens&, std::span<const float> d_o, std::span<const float> d_state);

} // namespace kdacheck::modules
