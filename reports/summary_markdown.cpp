#include "summary_markdown.hpp"

#include "words.hpp"

#include <fmt/format.h>
#include <string_view>

namespace kdacheck {
namespace {

/// Text that means itself inside a table cell.
std::string cell(std::string_view text) {
  std::string safe;
  for (char c : text) {
    switch (c) {
    case '|': safe += "\\|"; break;
    case '<': safe += "&lt;"; break;
    case '>': safe += "&gt;"; break;
    case '&': safe += "&amp;"; break;
    case '\n':
    case '\r': safe += ' '; break;
    case '\\':
    case '`':
    case '*':
    case '_':
    case '[':
    case ']': safe += '\\'; [[fallthrough]];
    default: safe += c;
    }
  }
  return safe;
}

constexpr std::size_t failures_shown = 50; // CI pages cut summaries off at a size; junit.xml has them all

} // namespace

std::string to_summary_markdown(const Results& results) {
  const Counts counts = total(results);
  const Context& context = results.context;
  const int status = exit_status(results);
  std::string text = fmt::format("## kdacheck: {}\n\n{}, in {}. Tier {}, seed {}, commit `{}`, {}{}.\n\n",
                                 status == 0   ? "passed"
                                 : status == 1 ? "FAILED"
                                 : status == 4 ? "stopped at the time budget, no failure so far"
                                               : "nothing passed",
                                 spoken(counts), short_duration(results.wall_seconds), cell(context.tier), context.seed,
                                 context.commit.empty() ? "unknown" : context.commit, cell(context.cpu),
                                 context.gpu.empty() ? "" : ", " + cell(context.gpu));
  if (const std::string escalation = spoken_escalation(results); !escalation.empty()) text += cell(escalation) + ".\n\n";
  text += "| kernel | contract | verdict | cases | error/bound | worst at |\n|---|---|---|--:|--:|---|\n";
  for (const KernelTally& kernel : results.kernels) {
    const Tally& tally = kernel.tally;
    std::string figure = "-", where;
    if (tally.worst && tally.verdict() != Verdict::not_supported) {
      const CaseResult& worst = *tally.worst;
      figure = short_figure(worst.finding.bound_util);
      where = (worst.finding.place ? worst.finding.place->tensor + ", " : "") + worst.regime + ", " + worst.property;
    }
    text += fmt::format(
        "| {} | {} | {} | {} | {} | {} |\n", cell(kernel.name), cell(kernel.in_short),
        tally.worst ? (is_failure(tally.verdict()) ? fmt::format("**{}**", spoken(tally.verdict())) : std::string(spoken(tally.verdict())))
                    : "not run",
        tally.counts.cases(), cell(figure), cell(where));
  }
  if (const auto failed = failed_groups(results); !failed.empty()) {
    text += "\n### Failures\n\n";
    for (std::size_t i = 0; i < failed.size() && i < failures_shown; ++i) {
      const auto& [key, tally] = failed[i];
      const Finding& finding = tally->worst->finding;
      text += fmt::format("- **{}** {}: {}, regime {}: error/bound {}, {} of {} cases", spoken(finding.verdict), cell(key->kernel),
                          cell(key->property), cell(key->regime), cell(short_figure(finding.bound_util)), tally->counts.failures(),
                          tally->counts.cases());
      if (finding.place) text += "; " + cell(to_text(*finding.place));
      if (!finding.detail.empty()) text += "; " + cell(finding.detail);
      if (!tally->localised.empty()) text += "; " + cell(tally->localised);
      text += fmt::format("\n  `{}`\n", replay_command(results.context, *tally->worst));
      if (const std::string seen = first_seen(results.context, *tally->worst); !seen.empty()) text += "  " + cell(seen) + "\n";
    }
    if (failed.size() > failures_shown) text += fmt::format("- and {} more\n", failed.size() - failures_shown);
  }
  if (!results.not_supported.empty()) {
    text += "\n<details><summary>Not supported</summary>\n\n| kernel | reason | cases |\n|---|---|--:|\n";
    for (const auto& [reason, cases] : results.not_supported)
      text += fmt::format("| {} | {} | {} |\n", cell(reason.kernel), cell(reason.text), cases);
    text += "\n</details>\n";
  }
  return text;
}

} // namespace kdacheck
