#include "module_selection.hpp"

#include "../properties/selection.hpp"

#include <algorithm>

namespace kdacheck {
namespace {

/// Every pattern must match a law or regime of some chosen module.
template <class Named>
void require_matches(const char* kind, const std::vector<std::string>& patterns, const std::vector<const ModuleSuite*>& suites,
                     std::vector<Named> ModuleSuite::*list) {
  std::vector<std::string> names;
  for (const ModuleSuite* suite : suites)
    for (const Named& item : suite->*list) names.push_back(item.name);
  for (const std::string& pattern : patterns)
    if (std::ranges::none_of(names, [&](const std::string& name) { return glob_matches(pattern, name); }))
      refuse_unknown(kind, pattern, names);
}

} // namespace

ModulePlan module_plan(const CaseSelection& selection, bool foreign) {
  ModulePlan plan;
  plan.forward = selection.direction != "backward", plan.backward = selection.direction != "forward";
  plan.first_seed = selection.seed;
  plan.seeds = module_seeds(selection.tier == "quick" ? Tier::quick : selection.tier == "full" ? Tier::full : Tier::nightly);
  plan.threads = selection.threads;
  if (selection.modules.empty()) {
    const bool narrowed = !selection.kernels.empty() || !selection.properties.empty() || !selection.regimes.empty();
    if (!narrowed && !foreign) plan.suites = matching<ModuleSuite>("module", {}, module_suites());
    return plan;
  }
  plan.suites = matching<ModuleSuite>("module", selection.modules, module_suites());
  require_matches("law of a module", selection.properties, plan.suites, &ModuleSuite::laws);
  require_matches("regime of a module", selection.regimes, plan.suites, &ModuleSuite::regimes);
  plan.laws = selection.properties, plan.regimes = selection.regimes;
  return plan;
}

} // namespace kdacheck
