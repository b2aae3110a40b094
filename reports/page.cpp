#include "page.hpp"

#include "../reference/atomic_file.hpp"
#include "../reference/named_file.hpp"
#include "page_sources.hpp"

#include <array>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace kdacheck {
namespace {

std::string filled(std::string_view frame, std::string_view data, std::string_view library, std::string_view script) {
  const std::array<std::pair<std::string_view, std::string_view>, 4> parts{
      {{"{{style}}", page_sources::style}, {"{{library}}", library}, {"{{data}}", data}, {"{{script}}", script}}};
  std::string page;
  std::string_view rest = frame;
  for (const auto& [mark, text] : parts) { // in the order in which the frame has them
    const auto at = rest.find(mark);
    page.append(rest.substr(0, at)).append(text);
    rest.remove_prefix(at + mark.size());
  }
  return page.append(rest);
}

} // namespace

std::string chart_library() {
  const char* other = std::getenv("KDACHECK_CHART_JS");
  const std::string path = other && *other ? other : usual_chart_library;
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  if (text.find("Chart.js") == std::string::npos)
    throw FileTrouble("the charting library Chart.js is not at " + path +
                      ": install Debian's libjs-chart.js, or name its file in KDACHECK_CHART_JS");
  if (text.find("</script") != std::string::npos || text.find("<!--") != std::string::npos)
    throw FileTrouble(path + " cannot be embedded in a page: it holds the end of a script element");
  return text;
}

std::filesystem::path place_of_page(const std::string& asked, const std::filesystem::path& otherwise) {
  if (asked.empty()) {
    demand_room_for_file(otherwise);
    return otherwise;
  }
  const std::filesystem::path place = asked;
  demand_room_for_file(place);
  std::ifstream there(place, std::ios::binary);
  constexpr std::string_view mark = "<title>kdacheck"; // both pages agree up to there
  const std::string_view beginning = page_sources::frame.substr(0, page_sources::frame.find(mark) + mark.size());
  std::string found(beginning.size(), '\0');
  if (there && there.peek() != std::ifstream::traits_type::eof() &&
      (!there.read(found.data(), static_cast<std::streamsize>(found.size())) || found != beginning))
    throw std::invalid_argument(place.string() + " is no page of a report: it is left as it is");
  return place;
}

std::string to_page(std::string_view data, std::string_view library) {
  return filled(page_sources::frame, data, library, page_sources::script);
}

std::string to_history_page(std::string_view data, std::string_view library) {
  return filled(page_sources::history_frame, data, library, page_sources::history_script);
}

} // namespace kdacheck
