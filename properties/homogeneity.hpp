#pragma once
// How far the two sides of relations that hold exactly between a forward and a backward pass may lie apart.

#include "../kernels/contract.hpp"
#include "../reference/truth.hpp"

#include <cstdint>
#include <vector>

namespace kdacheck {

/// o is linear in each token's q, and (o, S_T) in (v, S_0). So, exactly, with L = <d_o, o> + <d_S, S_T>:
///   token and q/k head:     q . dq = sum over its value heads of d_o . o        (q and k not normalised by the kernel)
///   sequence and value head: sum of v . dv + <S_0, dS_0> = L
/// Standard deviations of left minus right where forward and backward pass each keep the contract, with roundings of their
/// own: the variance of each side is the largest of the submodels, and they add up. What is stored is rounded too.
struct HomogeneitySpread {
  std::vector<double> token; ///< [B*T*H]
  std::vector<double> head;  ///< [N*HV]
  int draws = 0;             ///< per submodel
};

/// `truth` holds outputs and gradients. Entries are infinite where the contract's own range overflows.
HomogeneitySpread homogeneity_spread(const Contract&, const Problem&, const Truth& truth, std::uint64_t seed, int batches);

} // namespace kdacheck
