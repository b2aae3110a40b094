#include "words.hpp"

#include "../kernels/plugin/shell_word.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace kdacheck {

std::string_view spoken(Verdict verdict) {
  switch (verdict) {
  case Verdict::passed: return "passed";
  case Verdict::failed_proved: return "FAILED (proved)";
  case Verdict::failed_statistical: return "FAILED (stat.)";
  case Verdict::failed_property: return "FAILED (law)";
  case Verdict::inconclusive: return "inconclusive";
  case Verdict::not_supported: return "not supported";
  case Verdict::crashed: return "CRASHED";
  default: return "TIMED OUT";
  }
}

std::string short_figure(double x) {
  if (std::isnan(x)) return "nan";
  if (std::isinf(x)) return x > 0 ? "inf" : "-inf";
  if (x == 0) return "0";
  if (x > 0 && x < 0.005) return "<0.01";
  if (x < 9.995) return fmt::format("{:.2f}", x);
  if (x < 99.95) return fmt::format("{:.1f}", x);
  if (x < 9999.5) return fmt::format("{:.0f}", x);
  return fmt::format("{:.1e}", x);
}

std::string short_duration(double seconds) {
  if (seconds < 0.9995) return fmt::format("{:.0f} ms", seconds * 1000);
  if (seconds < 99.95) return fmt::format("{:.1f} s", seconds);
  const auto whole = std::llround(seconds);
  return fmt::format("{} min {:02} s", whole / 60, whole % 60);
}

std::string replay_command(const Context& context, const std::string& token) { return context.replay + " " + shell_word(token); }

std::string replay_command(const Context& context, const CaseResult& result) {
  return replay_command(context, result.shrunk.empty() ? result.replay : result.shrunk);
}

std::string first_seen(const Context& context, const CaseResult& result) {
  return result.shrunk.empty() ? "" : "shrunk; first seen as: " + replay_command(context, result.replay);
}

std::string spoken(const Counts& counts) {
  std::string text = fmt::format("{} case{}", counts.cases(), counts.cases() == 1 ? "" : "s");
  const char* separator = ": ";
  for (Verdict verdict : all_verdicts) {
    if (counts[verdict] == 0) continue;
    text += fmt::format("{}{} {}", separator, counts[verdict], spoken(verdict));
    separator = ", ";
  }
  return text;
}

std::string spoken_escalation(const Results& results) {
  std::string text;
  for (const auto& [oracle, cases] : results.escalated)
    text += fmt::format("{}{} case{} in {}", text.empty() ? "oracle beyond fp64: " : ", ", cases, cases == 1 ? "" : "s", oracle);
  return text;
}

std::vector<FailedGroup> failed_groups(const Results& results) {
  std::vector<FailedGroup> failed;
  for (const KernelTally& kernel : results.kernels) {
    const auto first = static_cast<std::ptrdiff_t>(failed.size());
    for (const auto& [key, tally] : results.groups)
      if (key.kernel == kernel.name && tally.counts.failures() > 0) failed.push_back({&key, &tally});
    std::stable_sort(failed.begin() + first, failed.end(), [](const FailedGroup& left, const FailedGroup& right) {
      return is_graver(left.tally->worst->finding, right.tally->worst->finding);
    });
  }
  return failed;
}

std::string fitted_to(std::string text, std::size_t width) {
  if (text.size() <= width) return text;
  if (width < 2) return text.substr(0, width);
  return text.substr(0, width - 2) + "..";
}

} // namespace kdacheck
