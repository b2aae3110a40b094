#pragma once
// Figures of a module's regimes, for report.json and the page.

#include "../properties/modules/module_suite.hpp"
#include "results.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace kdacheck {

struct FiguresOfRegime {
  std::string regime;
  std::vector<ModuleFigure> figures;
  std::string why_none; ///< what became of them, where there are none
};

/// Of the regimes that the run judged, on the case of the run's seed, computed in a process of their own. None for a module that has no
/// figures.
std::vector<FiguresOfRegime> module_figures(std::string_view name_in_reports, const Results&);

/// A heading and a sentence for the figures of a module that has them.
struct AboutFigures {
  std::string_view heading, sentence;
};
AboutFigures about_figures(std::string_view name_in_reports);

} // namespace kdacheck
