#pragma once
// The HTML page of a run: one file that opens offline and asks no network for anything.

#include <filesystem>
#include <string>
#include <string_view>

namespace kdacheck {

/// Where Debian's libjs-chart.js puts Chart.js; the environment's KDACHECK_CHART_JS names another copy.
inline constexpr const char* usual_chart_library = "/usr/share/javascript/chart.js/chart.min.js";

/// The text of Chart.js. Throws FileTrouble if it is not there or cannot stand in a script element.
std::string chart_library();

/// Where a page goes: to what --out names, or else to `otherwise`. What --out names may be replaced if it is a page: throws
/// std::invalid_argument, a sentence, where another file stands, a run's own among them.
std::filesystem::path place_of_page(const std::string& asked, const std::filesystem::path& otherwise);

/// The page with its style, scripts and data (page_data.hpp) in place.
std::string to_page(std::string_view data, std::string_view library);

/// The same for the trend over runs (history.hpp).
std::string to_history_page(std::string_view data, std::string_view library);

} // namespace kdacheck
