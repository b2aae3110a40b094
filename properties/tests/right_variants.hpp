#pragma once
// Right variants by name, the first refusal that a kernel meets, and kernels that promise more than they do.

#include "../campaign.hpp"
#include "../transform.hpp"

#include "../../kernels/faults/correct_variants.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace kdacheck {

inline const Kernel& variant(std::string_view name) {
  const auto all = correct_variants();
  const auto found = std::ranges::find(all, name, [](const Kernel& kernel) { return std::string_view(kernel.name); });
  REQUIRE(found != all.end());
  return *found;
}

/// The first refusal by a law over regimes and seeds, or "".
inline std::string refusal(const Kernel& kernel, const std::vector<std::string>& laws, const std::vector<std::string>& of_regimes,
                           int seeds) {
  static Judge judge;
  int judged = 0;
  for (const Property& law : properties()) {
    if (std::ranges::find(laws, law.name) == laws.end()) continue;
    for (const std::string& regime : of_regimes)
      for (int seed = 1; seed <= seeds; ++seed) {
        const Recipe recipe = fitted(regime_named(regime)->draw(static_cast<std::uint64_t>(seed), Tier::quick), kernel.contract);
        const CaseResult result = run_case(kernel, law, recipe, judge);
        if (is_failure(result.finding.verdict)) return result.replay + ": " + result.finding.detail;
        judged += result.finding.verdict == Verdict::passed;
      }
  }
  CHECK(judged > 0);
  return "";
}

/// The kernel with another contract's text: what it promises, not what it does.
inline Kernel claiming(const Kernel& kernel, std::string_view contract) {
  Kernel other = kernel;
  other.name += " claiming more";
  other.contract = *parse_contract(contract).contract;
  return other;
}

/// The kernel with a contract in which all that it computes with is fp32.
inline Kernel claiming_fp32(const Kernel& kernel) {
  Contract contract = kernel.contract;
  for (Format* format :
       {&contract.operands, &contract.scores, &contract.cumsum, &contract.solve, &contract.state, &contract.gradient_state})
    *format = Format::fp32;
  contract.truncate = false;
  return claiming(kernel, to_text(contract));
}

} // namespace kdacheck
