#pragma once
// ChunkwiseKDA as Modules: inputs q, k [R,H,K], v [R,HV,V], log_decay [R,HV,K], beta [R,HV]; state memory [N,HV,K,V].

#include "chunkwise_kda.hpp"
#include "module.hpp"

namespace kdacheck::modules {

struct ChunkwiseSizes {
  std::int64_t C = 64, H = 1, HV = 1, K = 1, V = 1;
  float scale = 1;
  bool normalise = false; ///< q and k divided by their norms first
};

/// Output o [R,HV,V].
Module chunkwise_module(const ChunkwiseSizes&);

/// Outputs G and W [R,HV,K], a token's row of Akk and Aqk [R,HV,C], U, inter and intra [R,HV,V], chunk after chunk from each sequence's
/// start; forward only, without normalise.
Module chunk_parts_module(const ChunkwiseSizes&);

} // namespace kdacheck::modules
