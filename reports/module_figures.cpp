#include "module_figures.hpp"

#include "../properties/modules/module_campaign.hpp"

#include <algorithm>

namespace kdacheck {

std::map<std::string, std::vector<FiguresOfRegime>> module_figures(const Results& results) {
  std::map<std::string, std::vector<FiguresOfRegime>> all;
  for (const ModuleSuite& suite : module_suites()) {
    if (!suite.figures) continue;
    const std::string name = name_in_reports(suite);
    std::vector<const ModuleRegime*> judged;
    for (const ModuleRegime& regime : suite.regimes)
      if (std::ranges::any_of(results.groups,
                              [&](const auto& group) { return group.first.kernel == name && group.first.regime == regime.name; }))
        judged.push_back(&regime);
    if (judged.empty()) continue;
    std::vector<ModuleFigures> figures = figures_in_a_process(suite, judged, results.context.seed);
    for (std::size_t i = 0; i < judged.size(); ++i)
      all[name].push_back({judged[i]->name, std::move(figures[i].figures), std::move(figures[i].why_none)});
  }
  return all;
}

AboutFigures about_figures(std::string_view name) {
  if (name == "module.DPLRTransition")
    return {
        "what its monitor proves, and a heuristic beside it",
        "The heuristic warns where max(alpha) (1 + beta |k|²) > 1. A false alarm is a warning for a transition that is proved to let no "
        "vector grow."};
  if (name == "module.HybridAttention")
    return {"memory of its state against attention in every layer", "Allocated bytes behind one prompt of a small stack: of the stack, of "
                                                                    "the same layers with MLA everywhere; and what keys and values "
                                                                    "of every head in every layer would take, counted."};
  return {"figures", ""};
}

} // namespace kdacheck
