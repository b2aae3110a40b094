#pragma once
// A module's call as the modules' own headers take it: sequences of one length as a batch, others packed.

#include "module.hpp"

namespace kdacheck::modules {

/// B sequences of T tokens, or B = 1 and cu_seqlens, a view of the call's.
struct CallTokens {
  std::int64_t B = 1, T = 0;
  std::span<const std::int64_t> cu_seqlens{};
};

inline CallTokens batch_of(const ModuleCall& call) {
  const std::int64_t N = call.sequences(), T = N > 0 ? call.rows() / N : 0;
  for (std::int64_t n = 0; n <= N; ++n)
    if (N < 1 || call.cu_seqlens[static_cast<std::size_t>(n)] != n * T) return {.B = 1, .T = call.rows(), .cu_seqlens = call.cu_seqlens};
  return {.B = N, .T = T, .cu_seqlens = {}};
}

} // namespace kdacheck::modules
