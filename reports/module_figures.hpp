#pragma once
// Figures of a module's regimes, for report.json and the page.

#include "../properties/modules/module_suite.hpp"
#include "results.hpp"

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace kdacheck {

/// Of every module of the run that has figures, by its name: of the regimes that were judged, on the case of the run's seed, computed in a
/// process of their own.
std::map<std::string, std::vector<FiguresOfRegime>> module_figures(const Results&);

/// A heading and a sentence for the figures of a module that has them.
struct AboutFigures {
  std::string_view heading, sentence;
};
AboutFigures about_figures(std::string_view name_in_reports);

} // namespace kdacheck
