#pragma once
// What kernels that are right leave of their bounds: the experiment that the factors z of confidence.hpp rest on.

#include "../kernels/kernel.hpp"
#include "cases/recipe.hpp"
#include "compare.hpp"

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace kdacheck {

struct MarginsPlan {
  std::vector<const Kernel*> kernels; ///< right ones
  std::vector<const Regime*> regimes;
  Tier tier = Tier::quick;
  std::uint64_t first_seed = 1;
  int seeds = 1;
  double seconds = 1e9; ///< no case is begun later; what there is time for is dealt evenly to kernels and regimes
  int threads = 0;      ///< 0: all cores
};

/// One kernel in one direction, over all cases.
struct KernelMargin {
  std::string kernel, contract; ///< text form
  bool backward = false;
  std::int64_t planned = 0;            ///< one for every regime and seed
  std::int64_t cases = 0, outside = 0; ///< outside: of the contract's domain
  std::int64_t above = 0;              ///< cases with an error above a bound, z for finitely many draws: false refusals
  std::array<Margin, all_groups.size()> margin{};
  std::array<std::string, all_groups.size()> where{}; ///< "regime, seed N" of the largest, by Group
  double largest_util = 0;                            ///< error / bound, z of a known sigma
  double seconds = 0;
};

/// Every kernel on every regime and seed, forward and backward where it has one, with 32 perturbed runs per submodel. In the order of
/// the plan's kernels, forward before backward. Each seed visits every regime once with a different kernel, then every regime with the
/// next one, and so on: after any time all regimes have had equally many cases, up to one, and all kernels nearly so.
std::vector<KernelMargin> measured_margins(const MarginsPlan&, const std::function<void(const std::string&)>& on_progress = {});

/// The constants of confidence.hpp derived anew: by direction and group the largest error / sigma that was seen, beside the constant;
/// then a line per kernel and direction, and how long all that was planned takes at the pace of what was done.
std::string margins_table(const std::vector<KernelMargin>&);

} // namespace kdacheck
