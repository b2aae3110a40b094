#include "table.hpp"

#include "words.hpp"

#include <algorithm>
#include <cstdlib>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

namespace kdacheck {
namespace {

struct Row {
  std::string kernel, contract, cases, unsupported, figure, where, time;
  Verdict verdict;
  bool counted; ///< has a case
};

std::string_view verdict_words(const Row& row) { return row.counted ? spoken(row.verdict) : "not run"; }

const char* colour_of(Verdict verdict) {
  if (is_failure(verdict)) return "\x1b[1;31m";
  if (verdict == Verdict::passed) return "\x1b[32m";
  return "\x1b[33m";
}

/// A kernel that crashed or hung left no error to measure.
std::string figure_of(const Finding& finding) {
  const bool measured = finding.verdict != Verdict::crashed && finding.verdict != Verdict::timed_out;
  return measured ? short_figure(finding.bound_util) : "-";
}

Row row_of(const KernelTally& kernel) {
  const Tally& tally = kernel.tally;
  Row row{.kernel = kernel.name,
          .contract = kernel.in_short.empty() ? kernel.contract : kernel.in_short,
          .cases = fmt::format("{}", tally.counts.cases()),
          .unsupported = fmt::format("{}", tally.counts[Verdict::not_supported]),
          .figure = "-",
          .where = "",
          .time = short_duration(tally.seconds),
          .verdict = tally.verdict(),
          .counted = tally.worst.has_value()};
  if (!tally.worst || tally.verdict() == Verdict::not_supported) return row;
  const Finding& finding = tally.worst->finding;
  row.figure = figure_of(finding);
  const std::string output = finding.place ? finding.place->tensor : "";
  row.where = output.empty() ? tally.worst->regime : output + ", " + tally.worst->regime;
  return row;
}

void append_kernels(std::string& text, const Results& results, const TableOptions& options) {
  std::vector<Row> rows;
  for (const KernelTally& kernel : results.kernels) rows.push_back(row_of(kernel));
  std::size_t kernel = 6, contract = 8, verdict = 7, cases = 5, unsupported = 3, figure = 11, where = 20, time = 4;
  for (const Row& row : rows) {
    kernel = std::max(kernel, row.kernel.size());
    contract = std::max(contract, row.contract.size());
    verdict = std::max(verdict, verdict_words(row).size());
    cases = std::max(cases, row.cases.size());
    unsupported = std::max(unsupported, row.unsupported.size());
    figure = std::max(figure, row.figure.size());
    where = std::max(where, row.where.size());
    time = std::max(time, row.time.size());
  }
  // Seven gaps of two columns; contracts give way first, then places, then names.
  const auto shrink = [&, fixed = verdict + cases + unsupported + figure + time + 14](std::size_t& column, std::size_t least) {
    const std::size_t total = fixed + kernel + contract + where;
    if (total > options.width) column = std::max(std::min(column, least), column - std::min(column, total - options.width));
  };
  for (const bool hard : {false, true}) {
    shrink(contract, hard ? 14 : 24);
    shrink(where, hard ? 14 : 24);
    shrink(kernel, hard ? 17 : 26);
  }
  const std::string heading =
      fmt::format("{:<{}}  {:<{}}  {:<{}}  {:>{}}  {:>{}}  {:>{}}  {:<{}}  {:>{}}", "kernel", kernel, "contract", contract, "verdict",
                  verdict, "cases", cases, "n/s", unsupported, "error/bound", figure, "worst at", where, "time", time);
  text += heading + "\n" + std::string(heading.size(), '-') + "\n";
  for (const Row& row : rows) {
    std::string spoken_verdict = fmt::format("{:<{}}", verdict_words(row), verdict);
    if (options.colour) spoken_verdict = colour_of(row.verdict) + spoken_verdict + "\x1b[0m";
    text += fmt::format("{:<{}}  {:<{}}  {}  {:>{}}  {:>{}}  {:>{}}  {:<{}}  {:>{}}\n", fitted_to(row.kernel, kernel), kernel,
                        fitted_to(row.contract, contract), contract, spoken_verdict, row.cases, cases, row.unsupported, unsupported,
                        row.figure, figure, fitted_to(row.where, where), where, row.time, time);
  }
}

void append_failures(std::string& text, const Results& results, const TableOptions& options) {
  const auto failed = failed_groups(results);
  if (failed.empty()) return;
  text += "\n";
  for (std::size_t i = 0; i < std::min(failed.size(), options.failures_shown); ++i) {
    const auto& [key, tally] = failed[i];
    const Finding& finding = tally->worst->finding;
    text += fmt::format("{}{}{}  {}  {}  [{}]  error/bound {}, {} of {} cases\n", options.colour ? colour_of(finding.verdict) : "",
                        spoken(finding.verdict), options.colour ? "\x1b[0m" : "", key->kernel, key->property, key->regime,
                        figure_of(finding), tally->counts.failures(), tally->counts.cases());
    if (finding.place) text += "    " + to_text(*finding.place) + "\n";
    if (!finding.detail.empty()) text += "    " + finding.detail + "\n";
    text += "    " + replay_command(results.context, *tally->worst) + "\n";
    if (const std::string seen = first_seen(results.context, *tally->worst); !seen.empty()) text += "      " + seen + "\n";
  }
  if (failed.size() > options.failures_shown)
    text += fmt::format("and {} more failing kernel x property x regime: see junit.xml\n", failed.size() - options.failures_shown);
}

void append_inconclusive(std::string& text, const Results& results, const TableOptions& options) {
  std::size_t listed = 0;
  for (const auto& [key, tally] : results.groups) {
    if (tally.verdict() != Verdict::inconclusive) continue;
    if (listed++ == 0) text += fmt::format("\ninconclusive: {} cases\n", total(results)[Verdict::inconclusive]);
    if (listed <= options.reasons_shown)
      text += fmt::format("  {:>6}  {}  {}  [{}]  {}\n          {}\n", tally.counts[Verdict::inconclusive], key.kernel, key.property,
                          key.regime, tally.worst->finding.detail, replay_command(results.context, *tally.worst));
  }
  if (listed > options.reasons_shown)
    text += fmt::format("  and {} more kernel x property x regime: see junit.xml\n", listed - options.reasons_shown);
}

void append_not_supported(std::string& text, const Results& results, const TableOptions& options) {
  std::map<std::string, std::size_t> by_reason;
  for (const auto& [reason, cases] : results.not_supported) by_reason[reason.text] += cases;
  if (by_reason.empty()) return;
  std::vector<std::pair<std::string, std::size_t>> reasons(by_reason.begin(), by_reason.end());
  std::ranges::stable_sort(reasons, std::greater{}, [](const auto& reason) { return reason.second; });
  text += fmt::format("\nnot supported (n/s): {} cases\n", total(results)[Verdict::not_supported]);
  std::size_t rest = 0;
  for (std::size_t i = 0; i < reasons.size(); ++i)
    if (i < options.reasons_shown)
      text += fmt::format("  {:>6}  {}\n", reasons[i].second, fitted_to(reasons[i].first, options.width - 10));
    else
      rest += reasons[i].second;
  if (rest > 0) text += fmt::format("  {:>6}  for {} other reasons\n", rest, reasons.size() - options.reasons_shown);
}

void append_close(std::string& text, const Results& results) {
  const Counts counts = total(results);
  std::size_t failing = 0, passing = 0;
  for (const KernelTally& kernel : results.kernels) {
    failing += kernel.tally.counts.failures() > 0;
    passing += kernel.tally.verdict() == Verdict::passed;
  }
  const auto modules = std::ranges::count_if(results.kernels, &KernelTally::module);
  const char* judged = modules == 0 ? "kernels" : modules == std::ssize(results.kernels) ? "modules" : "kernels and modules";
  text += fmt::format("\n{}, in {}\n", spoken(counts), short_duration(results.wall_seconds));
  if (const std::string escalation = spoken_escalation(results); !escalation.empty()) text += escalation + "\n";
  if (results.outcome.stopped)
    text += fmt::format("stopped before the end: {} of {} planned cases ran\n", results.outcome.ran + results.outcome.skipped,
                        results.outcome.planned);
  if (failing > 0)
    text += fmt::format("FAILED: {} of {} {}\n", failing, results.kernels.size(), judged);
  else if (counts[Verdict::passed] == 0)
    text += "NOTHING PASSED: no case ran that a kernel supports\n";
  else if (results.outcome.stopped)
    text += "no failure so far\n";
  else
    text += fmt::format("PASSED: {} of {} {}\n", passing, results.kernels.size(), judged);
}

} // namespace

std::string console_table(const Results& results, const TableOptions& options) {
  std::string text;
  const Context& context = results.context;
  if (!context.tier.empty())
    text += fmt::format("tier {}, seed {}, commit {}, {}, {} threads{}\n\n", context.tier, context.seed,
                        context.commit.empty() ? "unknown" : context.commit, context.cpu, context.threads,
                        context.gpu.empty() ? "" : ", " + context.gpu);
  append_kernels(text, results, options);
  append_failures(text, results, options);
  append_inconclusive(text, results, options);
  append_not_supported(text, results, options);
  append_close(text, results);
  return text;
}

TableOptions table_options_for(int file_descriptor) {
  TableOptions options;
  if (!::isatty(file_descriptor)) return options;
  options.colour = std::getenv("NO_COLOR") == nullptr;
  winsize size{};
  if (::ioctl(file_descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) options.width = std::clamp<std::size_t>(size.ws_col, 100, 160);
  return options;
}

} // namespace kdacheck
