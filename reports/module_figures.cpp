#include "module_figures.hpp"

#include "../properties/modules/module_campaign.hpp"

#include <algorithm>

namespace kdacheck {

std::vector<FiguresOfRegime> module_figures(std::string_view name, const Results& results) {
  std::vector<FiguresOfRegime> all;
  for (const ModuleSuite& suite : module_suites()) {
    if (name_in_reports(suite) != name || !suite.figures) continue;
    for (const ModuleRegime& regime : suite.regimes)
      if (std::ranges::any_of(results.groups,
                              [&](const auto& group) { return group.first.kernel == name && group.first.regime == regime.name; }))
        all.push_back({regime.name, suite.figures(regime.name, results.context.seed)});
  }
  return all;
}

} // namespace kdacheck
