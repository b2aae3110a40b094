#pragma once
// ChunkwiseKDA: KDA over chunks of C tokens, with its auxiliary vectors and parts laid open. It is the suite's fp32 chunk
// kernel (kernels/cpu/chunk.hpp), not a second one.
//
//   G inclusive sums of ln alpha in the chunk, S the state at its start, kd = k e^G, qd = scale q e^G, kr = k e^{G_C - G}
//   Akk_ij = sum_c k_ic k_jc e^{G_ic - G_jc} (i > j)    Aqk_ij = scale sum_c q_ic k_jc e^{G_ic - G_jc} (i >= j)
//   T = (I + diag(beta) Akk)^{-1}    W = T diag(beta) kd    U = T diag(beta) (V - kd S)  =  T diag(beta) V - W S
//   o = qd S  (between chunks)  +  Aqk U  (inside)          S' = Diag(e^{G_C}) S + kr^T U
//
// e^{G_i - G_j} is never split into factors that could overflow: secondary chunking forms the scores in sub-blocks of 16
// tokens, between two of which the exponent is split at the last token before the later one, so that both factors are decays.
// Decays are in nats per token, nothing else has a unit. Source: Kimi Linear technical report (arXiv 2510.26692), sections 3.1 and 3.2.

#include "kda_core.hpp"

#include <array>
#include <cstdint>
#include <vector>

namespace kdacheck::modules {

inline constexpr std::array<std::int64_t, 4> chunk_lengths{16, 32, 64, 128};
inline constexpr std::int64_t sub_block = 16; ///< tokens of secondary chunking

/// o and the state after the last tokens, in fp32; the chunk length changes no more than roundings. Throws
/// std::invalid_argument for a C that is none of chunk_lengths, a log decay above 0 or NaN; Refused for sizes that do not fit.
CoreResult chunkwise_kda(std::int64_t C, const CoreTokens&);

/// Its gradients, for the cotangents of o and of the last state (empty: zero).
CoreGradients chunkwise_kda_backward(std::int64_t C, const CoreTokens&, std::span<const float> d_o, std::span<const float> d_state);

/// One chunk of one value head, row-major; n = C tokens, fewer at a sequence's end.
struct ChunkParts {
  std::int64_t first = 0, n = 0; ///< tokens [first, first + n) of the sequence
  std::vector<float> G;          ///< [n,K]
  std::vector<float> Akk, Aqk;   ///< [n,n]; strictly lower, lower; zero elsewhere
  std::vector<float> W, U;       ///< [n,K], [n,V]
  std::vector<float> inter;      ///< [n,V] qd S: what earlier chunks give
  std::vector<float> intra;      ///< [n,V] Aqk U: what this chunk gives; o is their sum, rounded once less
  std::vector<float> start, end; ///< [K,V]
};

/// All chunks of a sequence and value head, in order. Needs normalise = false. Throws as chunkwise_kda, and
/// std::out_of_range for a sequence or head that is not there.
std::vector<ChunkParts> chunk_parts(std::int64_t C, const CoreTokens&, std::int64_t sequence, std::int64_t head);

} // namespace kdacheck::modules
