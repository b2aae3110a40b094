#include "limits_text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <vector>

namespace kdacheck {
namespace {

std::string cell(const std::optional<int>& exponent) { return exponent ? fmt::format("{}", *exponent) : "none"; }

/// Figures by contract and tensor, in the order in which they were measured.
struct Line {
  std::string label, what;
  std::map<std::string, std::optional<int>> by_regime;
  std::optional<int> best() const {
    std::optional<int> largest;
    for (const auto& [regime, exponent] : by_regime)
      if (exponent && (!largest || *exponent > *largest)) largest = exponent;
    return largest;
  }
};

struct Sheet {
  std::vector<std::string> regimes;
  std::vector<Line> lines;

  explicit Sheet(std::span<const Limit> limits) {
    for (const Limit& limit : limits) {
      if (std::ranges::find(regimes, limit.regime) == regimes.end()) regimes.push_back(limit.regime);
      auto line = std::ranges::find_if(lines, [&](const Line& l) { return l.label == limit.label && l.what == limit.what; });
      if (line == lines.end()) line = lines.insert(line, Line{.label = limit.label, .what = limit.what, .by_regime = {}});
      line->by_regime[limit.regime] = limit.exponent;
    }
  }
};

} // namespace

std::string limits_table(std::span<const Limit> limits) {
  const Sheet sheet(limits);
  std::string text = "smallest relative error 2^-e that is refused on every seed: e by regime (none: not even 1/2)\n\n";
  text += fmt::format("{:<18} {:<24}", "contract", "error in");
  for (const std::string& regime : sheet.regimes) text += fmt::format(" {:>20}", regime);
  text += fmt::format(" {:>5}\n", "best");
  for (const Line& line : sheet.lines) {
    text += fmt::format("{:<18} {:<24}", line.label, line.what);
    for (const std::string& regime : sheet.regimes) {
      const auto found = line.by_regime.find(regime);
      text += fmt::format(" {:>20}", found == line.by_regime.end() ? "-" : cell(found->second));
    }
    text += fmt::format(" {:>5}\n", cell(line.best()));
  }
  return text;
}

std::string limits_markdown(std::span<const Limit> limits, const Context& context, const std::string& command) {
  const Sheet sheet(limits);
  std::map<std::string, std::string> contracts;
  for (const Limit& limit : limits) contracts[limit.label] = limit.contract;
  std::string text = fmt::format(
      "# Detection limits\n\nThe smallest relative error of each output, gradient and input that the gate refuses. A cell holds e: an "
      "error of "
      "2^-e in every\nelement (or in one token, one state row), the sign by chance, is refused on every one of {} seeds; of 2^-(e+1) it is "
      "not.\n`none`: not even 1/2. `-`: the contract's domain leaves the regime out. Inputs are misread before the kernel's first "
      "rounding.\n\n"
      "Measured on {}, commit {}, {}:\n\n    {}\n",
      limits.empty() ? 0 : limits.front().seeds, context.cpu, context.commit, context.started.substr(0, 10), command);
  std::string label;
  for (const Line& line : sheet.lines) {
    if (line.label != label) {
      label = line.label;
      text += fmt::format("\n## {}\n\n`{}`\n\n| error in |", label, contracts[label]);
      for (const std::string& regime : sheet.regimes) text += fmt::format(" {} |", regime);
      text += " best |\n|---|";
      for (std::size_t i = 0; i <= sheet.regimes.size(); ++i) text += "--:|";
      text += "\n";
    }
    text += fmt::format("| {} |", line.what);
    for (const std::string& regime : sheet.regimes) {
      const auto found = line.by_regime.find(regime);
      text += fmt::format(" {} |", found == line.by_regime.end() ? "-" : cell(found->second));
    }
    text += fmt::format(" {} |\n", cell(line.best()));
  }
  return text;
}

} // namespace kdacheck
