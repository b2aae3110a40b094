#pragma once
// The smallest error that the gate sees: a right kernel whose output, gradient or input is off by a known relative amount.

#include "../kernels/kernel.hpp"
#include "cases/recipe.hpp"

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace kdacheck {

/// One figure. `what`: "o", "one token of o", "final_state", "one row of final_state": that result with every element x
/// made x (1 +- 2^-e), the sign by a hash of its place; "input q", ...: the kernel reads that tensor so, in fp32, before
/// its first rounding; "dq", ...: that gradient so.
struct Limit {
  std::string contract, label; ///< text form; the kernel's name without "correct." or "cpu."
  std::string what, regime;
  std::optional<int> exponent; ///< largest e at which it is refused on every seed; nothing: not even at 2^-1
  int seeds = 0;
};

struct LimitsPlan {
  std::vector<const Kernel*> kernels; ///< right ones
  std::vector<const Regime*> regimes;
  std::uint64_t first_seed = 1;
  int seeds = 3;
  int threads = 0;
};

/// Finds each figure by bisection over e in 1 .. 26, each step judged by Judge on the problem without the error. Cases
/// are of one head, 96 tokens, K = V = 32. Combinations outside a contract's domain are left out.
/// Errors: throws std::logic_error if a kernel without an error is not passed.
std::vector<Limit> detection_limits(const LimitsPlan&, const std::function<void(const std::string&)>& on_progress = {});

/// False where a regime has nothing to say of a kernel: one of a and b, which KDA has not.
bool can_have_limits(const Kernel&, const Regime&);

/// A kernel of every kind of contract: fp32, tf32 rounded and truncated, fp16, bf16, sums, scores and states in other formats, every
/// order, and the general rule; and regimes that between them expose every tensor.
std::vector<const Kernel*> usual_kernels_for_limits();
std::vector<const Regime*> usual_regimes_for_limits();

} // namespace kdacheck
