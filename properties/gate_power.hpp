#pragma once
// How good is the gate? Plants every known fault and sees which property and regime catch it; runs correct variants and
// counts refusals; does the same for a rule of the user's own.

#include "../kernels/faults/correct_variants.hpp"
#include "../kernels/faults/faults.hpp"
#include "../kernels/faults/legal_roundings.hpp"
#include "acceptance_rule.hpp"
#include "campaign.hpp"

#include <array>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kdacheck {

/// What happened to one planted fault.
struct FaultPower {
  std::string name, origin, what;
  int seeds = 0, caught_seeds = 0;                              ///< independent seeds tried, and in how many it was caught
  std::map<std::pair<std::string, std::string>, int> caught_by; ///< (property, regime) -> seeds
  double first_catch_seconds = 0;                               ///< compute time until first caught, summed over seeds
  std::size_t cases = 0;
  std::string found; ///< replay token of the case on which it was first caught, shrunk if that was asked for
  bool caught() const { return seeds > 0 && caught_seeds == seeds; } ///< on every seed
};

/// What happened to one kernel that is right.
struct CorrectPower {
  std::string name, contract;
  std::size_t cases = 0, rejected = 0, inconclusive = 0; ///< inconclusive ones are none of the cases
  double worst_bound_util = 0;                           ///< judged by the gate: a rule has no bound
  std::vector<std::string> rejections;                   ///< replay tokens
  /// Of the cases, those in which a law of agreement with the oracle decided: the others ask for less than all that is true of a result.
  std::size_t agreement = 0;
  std::map<std::string, std::size_t> cases_of_regime = {};
};

/// What happened to a departure that a contract allows: no refusal is due.
struct LegalPower {
  CorrectPower kernel;
  std::string fault, label, reason;
};

struct Power {
  std::vector<FaultPower> faults;
  std::vector<CorrectPower> correct;
  std::vector<LegalPower> legal;
};

/// Adds what further seeds showed; both must be of the same faults and kernels, in the same order.
void add(Power&, const Power& further);

/// The planted faults taken apart by a hash of their name, so that regimes tuned on one half can be tried on the other.
int half_of(std::string_view fault); ///< 0 or 1
struct Half {
  std::size_t faults = 0, caught = 0; ///< on every seed, by the whole gate
  /// Tuned on the other half: as few (property, regime) cells as a greedy choice needs to catch there all that the gate
  /// caught, and how many of this half's faults these cells catch. Says something only where the whole matrix was filled.
  std::size_t cells = 0, caught_by_cells = 0;
};
std::array<Half, 2> halves(const Power&);

struct PowerPlan {
  std::vector<const FaultInfo*> faults;
  std::vector<const Kernel*> correct;
  std::vector<const LegalRounding*> legal = {};
  std::vector<const Property*> properties;
  std::vector<const Regime*> regimes;
  Tier tier = Tier::quick;
  std::uint64_t first_seed = 1;
  int seeds = 1;
  /// Go on after the first catch, to fill the whole matrix. Otherwise the laws that visit every case come first, and only
  /// what gets past them meets the others: on each seed a fault shows where it was caught first, not all that catches it.
  bool every_catch = false;
  double shrink_seconds = 0; ///< per fault, to find the simplest case on which it is caught
  int threads = 0;
};

/// How far one seed is: what is planted or judged now, and how many cases of that are done.
using SeedProgress = std::function<void(std::string_view what, const Progress&)>;

/// Judges by the gate: faults of the forward pass by the laws of outputs, those of the backward pass by the laws of gradients.
Power gate_power(const PowerPlan&, const std::function<void(const std::string&)>& on_progress = {});

/// The same for one seed.
Power gate_power_of_seed(const PowerPlan&, std::uint64_t seed, const SeedProgress& = {});

/// A law by which all of a result is compared with what is true.
bool is_agreement(std::string_view law);

/// Judges by a rule: every fault and correct kernel on the same draws of the same regimes. `property` reads "rule". Faults of the
/// backward pass are judged by their gradients; correct kernels in every direction that a fault of the plan has.
Power rule_power(const PowerPlan&, const AcceptanceRule&);

} // namespace kdacheck
