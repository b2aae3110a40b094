#pragma once
// What a run found, gathered per kernel and per kernel x property x regime. Every writer in this folder reads this.

#include "../properties/campaign.hpp"
#include "../properties/modules/module_suite.hpp"
#include "context.hpp"

#include <array>
#include <cstddef>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

namespace kdacheck {

/// Cases by verdict.
struct Counts {
  std::array<std::size_t, all_verdicts.size()> by_verdict{};
  std::size_t operator[](Verdict verdict) const { return by_verdict[static_cast<std::size_t>(verdict)]; }
  std::size_t& operator[](Verdict verdict) { return by_verdict[static_cast<std::size_t>(verdict)]; }
  std::size_t cases() const;
  std::size_t failures() const;
};

/// A set of cases seen from outside.
struct Tally {
  Counts counts;
  std::optional<CaseResult> worst; ///< the gravest case: by verdict, then (if passed) one that names a tensor, then by bound_util
  std::string localised = {};      ///< what localisation says of the first failure, or empty
  double seconds = 0;              ///< summed over the cases
  std::uint64_t drawn = 0;         ///< of the cases' properties and recipes, in any order: two tallies of the same cases have the same
  Verdict verdict() const { return worst ? worst->finding.verdict : Verdict::not_supported; }
};

struct KernelTally {
  std::string name;
  std::string contract{}; ///< its text form
  std::string in_short{}; ///< the contract in a few words, for tables
  Tally tally{};
  bool module = false; ///< a module of the layer (properties/modules), not a kernel: stands in report.json's modules[]
};

struct GroupKey {
  std::string kernel, property, regime;
  auto operator<=>(const GroupKey&) const = default;
};

/// A refusal's or an exclusion's reason, counted per kernel.
struct Reason {
  std::string kernel, text;
  auto operator<=>(const Reason&) const = default;
};

/// A module's figures of one regime.
struct FiguresOfRegime {
  std::string regime;
  std::vector<ModuleFigure> figures;
  std::string why_none; ///< what became of them, where there are none
};

struct Results {
  Context context;
  Outcome outcome;                  ///< how far the run came
  double wall_seconds = 0;          ///< of the whole run
  std::vector<KernelTally> kernels; ///< in the order of the plan, also those without a case
  std::map<GroupKey, Tally> groups;
  std::map<Reason, std::size_t> not_supported;
  std::map<std::string, std::size_t> escalated = {};                ///< cases whose oracle took more than fp64, by its arithmetic
  std::map<std::string, std::vector<FiguresOfRegime>> figures = {}; ///< of modules that have some, by the module's name
};

/// Counts a case in. A kernel that was not announced in `kernels` is appended with an empty contract.
void add(Results&, const CaseResult&);

/// Everything that was added.
Counts total(const Results&);

/// Tables list a contract so: "fp32, C=64", "fp32 in, tf32 mma, C=16", "bf16 mma, bf16 state, C=64, wy", "DPLR fp32,
/// recurrence". Inputs are named where they differ from the operands; sums and state where they are not fp32.
std::string in_short(const Contract&);

/// Empty tally of a kernel, of a module.
KernelTally tally_of(const Kernel&);
KernelTally tally_of(const ModuleSuite&);

/// The status with which `verify` ends: 1 a failure, 4 stopped early, 5 no case passed (none ran, none was supported), else 0.
int exit_status(const Results&);

} // namespace kdacheck
