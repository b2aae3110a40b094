#include "history.hpp"

#include "json_numbers.hpp"
#include "words.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace kdacheck {
namespace {

using Json = nlohmann::ordered_json;

std::vector<std::string> kernel_names(const std::vector<PastRun>& runs) {
  std::vector<std::string> names;
  for (const PastRun& run : runs)
    for (const KernelTally& kernel : run.results.kernels)
      if (std::ranges::find(names, kernel.name) == names.end()) names.push_back(kernel.name);
  return names;
}

/// The kernel's tally if the run has a case of it.
const Tally* tally_in(const Results& results, const std::string& kernel) {
  const auto found = std::ranges::find(results.kernels, kernel, &KernelTally::name);
  return found == results.kernels.end() || !found->tally.worst ? nullptr : &found->tally;
}

std::string date_of(const Context& context) { return context.started.substr(0, 16); }

} // namespace

void sort_by_start(std::vector<PastRun>& runs) {
  std::ranges::stable_sort(runs, {}, [](const PastRun& run) { return run.results.context.started; });
}

std::string to_history_json(const std::vector<PastRun>& runs) {
  Json page{{"same_cases", true}, {"runs", Json::array()}, {"kernels", Json::array()}};
  for (const PastRun& run : runs) {
    const Context &context = run.results.context, &first = runs.front().results.context;
    if (context.tier != first.tier || context.seed != first.seed) page["same_cases"] = false;
    const Counts counts = total(run.results);
    page["runs"].push_back({{"folder", run.folder},
                            {"started", context.started},
                            {"commit", context.commit},
                            {"tier", context.tier},
                            {"seed", std::to_string(context.seed)},
                            {"cpu", context.cpu},
                            {"cases", counts.cases()},
                            {"failures", counts.failures()},
                            {"stopped", run.results.outcome.stopped},
                            {"seconds", json_number(run.results.wall_seconds)}});
  }
  for (const std::string& kernel : kernel_names(runs)) {
    Json row{{"name", kernel}};
    for (const char* column : {"util", "failures", "seconds", "verdict", "replay"}) row[column] = Json::array();
    for (const PastRun& run : runs) {
      const Tally* tally = tally_in(run.results, kernel);
      row["util"].push_back(tally ? json_number(tally->worst->finding.bound_util) : Json());
      row["failures"].push_back(tally ? Json(tally->counts.failures()) : Json());
      row["seconds"].push_back(tally ? json_number(tally->seconds / static_cast<double>(tally->counts.cases())) : Json());
      row["verdict"].push_back(tally ? Json(spoken(tally->verdict())) : Json());
      row["replay"].push_back(tally ? Json(tally->worst->replay) : Json());
    }
    page["kernels"].push_back(std::move(row));
  }
  std::string text = page.dump(-1, ' ', false, Json::error_handler_t::replace);
  for (std::size_t at = 0; (at = text.find('<', at)) != std::string::npos; at += 6) text.replace(at, 1, "\\u003c");
  return text;
}

std::string to_text(const std::vector<PastRun>& runs) {
  std::string text = fmt::format("{:>3}  {:<16}  {:<18} {:<9} {:>20}  {:>8} {:>8} {:>10}  {}\n", "run", "started", "commit", "tier", "seed",
                                 "cases", "failures", "time", "folder");
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const Context& context = runs[i].results.context;
    const Counts counts = total(runs[i].results);
    text +=
        fmt::format("{:>3}  {:<16}  {:<18} {:<9} {:>20}  {:>8} {:>8} {:>10}  {}\n", i + 1, date_of(context), context.commit, context.tier,
                    context.seed, counts.cases(), counts.failures(), short_duration(runs[i].results.wall_seconds), runs[i].folder);
    if (runs[i].results.outcome.stopped) text.insert(text.size() - 1, "  (stopped early)");
  }
  std::size_t width = 26;
  for (const std::string& kernel : kernel_names(runs)) width = std::max(width, kernel.size());
  text += fmt::format("\n{:<{}}", "largest error / bound, run", width);
  for (std::size_t i = 0; i < runs.size(); ++i) text += fmt::format(" {:>9}", i + 1);
  text += "\n";
  for (const std::string& kernel : kernel_names(runs)) {
    text += fmt::format("{:<{}}", kernel, width);
    for (const PastRun& run : runs) {
      const Tally* tally = tally_in(run.results, kernel);
      text += fmt::format(" {:>8}{}", tally ? short_figure(tally->worst->finding.bound_util) : "-",
                          tally && tally->counts.failures() > 0 ? "!" : " ");
    }
    text += "\n";
  }
  return text + "(!: with failures)\n";
}

} // namespace kdacheck
