#pragma once
// How large an error a contract allows on given data. The one place that derives tolerances (error-theory: rigorous
// bound, and the spread of perturbed runs at the declared rounding sites).

#include "../kernels/contract.hpp"
#include "../reference/problem.hpp"
#include "../reference/truth.hpp"
#include "perturbed/submodels.hpp"

#include <array>
#include <cstdint>
#include <vector>

namespace kdacheck {

/// Standard deviations of the pre-rounding error of a kernel that keeps its contract, by group of elements. Entries may
/// be infinite where the contract's own range overflows.
struct OutputBudget {
  std::vector<double> token;        ///< [B*T*HV]: rms over V of the error of o
  std::vector<double> channel;      ///< [N*HV*V]: rms over the tokens of a sequence
  std::vector<double> state_row;    ///< [N*HV*K]: rms over V of the error of the final state
  std::vector<double> state_column; ///< [N*HV*V]: rms over K
  /// Degrees of freedom of each group's error (confidence.hpp), in the same order.
  std::vector<double> token_freedom, channel_freedom, state_row_freedom, state_column_freedom;
};

/// The same for one gradient: `fine` per leading index ([B*T*heads] for dq dk dv dg da db, a window of tokens for dbeta,
/// rows for d initial_state, one per element for dA_log and ddt_bias).
struct GradientBudget {
  std::vector<double> fine;
  std::vector<double> freedom; ///< degrees of freedom of each group's error
  /// By channel over the tokens of a sequence ([N*heads*channels] of dq dk dv dg da db), by column of d initial_state ([N*HV*V]); empty for
  /// the others.
  std::vector<double> channel, channel_freedom;
};

/// Bound that no kernel keeping its contract can exceed, per element group, or empty where none was derived.
struct ProvedBound {
  std::vector<double> token;                                   ///< [B*T*HV]: largest |error| of an element of o before its last rounding
  std::vector<double> state_row;                               ///< [N*HV*K]
  std::array<std::vector<double>, all_inputs.size()> gradient; ///< in the groups of GradientBudget::fine
};

struct Budget {
  OutputBudget output;
  std::array<GradientBudget, all_inputs.size()> gradient;
  ProvedBound proved;
  int draws = 0; ///< perturbed runs per noise model and order that it rests on
};

/// Budget of (contract, problem): deterministic in its arguments. `draws` perturbed runs per noise model and order.
/// `Submodels::first` takes one noise model and order only, with the same noise: nowhere more than that of all of them.
Budget forward_budget(const Contract&, const Problem&, const Truth&, std::uint64_t noise_seed, int draws, Submodels = Submodels::all);
Budget gradient_budget(const Contract&, const Problem&, const Truth&, std::uint64_t noise_seed, int draws, Submodels = Submodels::all);

} // namespace kdacheck
