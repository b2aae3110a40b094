#include "series.hpp"

#include "../reference/named_file.hpp"
#include "json_numbers.hpp"
#include "words.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <stdexcept>

namespace kdacheck {
namespace {

using Json = nlohmann::ordered_json;
constexpr int schema_version = 1;

/// Six figures: what a picture and its table show, and room to see a bound that is nearly met.
Json figure(double x) {
  if (!std::isfinite(x)) return json_number(x);
  return std::stod(fmt::format("{:.6g}", x));
}

Json json_of(const Drift& drift) {
  Json lengths = Json::array(), windows = Json::array();
  for (const DriftLength& length : drift.lengths)
    lengths.push_back({length.T, name(length.finding.verdict), figure(length.finding.bound_util),
                       figure(length.finding.metrics.rms_rel_err), length.finding.place ? length.finding.place->tensor : "",
                       length.replay});
  for (const DriftWindow& window : drift.windows) windows.push_back({window.token, figure(window.largest), figure(window.median)});
  return {{"kernel", drift.kernel}, {"regime", drift.regime}, {"lengths", std::move(lengths)}, {"windows", std::move(windows)}};
}

Json json_of(const RegimeSpectra& spectra) {
  Json samples = Json::array();
  for (const SpectrumSample& s : spectra.samples)
    samples.push_back({figure(s.tau), figure(s.least), figure(s.least_low), figure(s.least_high), figure(s.radius), figure(s.radius_bound),
                       figure(s.norm), figure(s.norm_bound), figure(s.heuristic), int{s.outside}, int{s.grows}, int{s.within},
                       int{s.false_alarm}, int{s.silent}});
  return {{"rule", spectra.rule == Rule::kda ? "kda" : "dplr"},
          {"regime", spectra.regime},
          {"recipe", spectra.recipe},
          {"samples", std::move(samples)}};
}

/// Sums over the regimes of one rule.
struct SpectraTotals {
  std::size_t samples = 0, outside = 0, warned = 0, false_alarms = 0, grows = 0, silent = 0;
};
SpectraTotals totals_of(const Series& series, Rule rule) {
  SpectraTotals totals;
  for (const RegimeSpectra& regime : series.spectra) {
    if (regime.rule != rule) continue;
    for (const SpectrumSample& sample : regime.samples) {
      ++totals.samples;
      totals.outside += sample.outside;
      totals.warned += sample.heuristic > 1;
      totals.false_alarms += sample.false_alarm;
      totals.grows += sample.grows;
      totals.silent += sample.silent;
    }
  }
  return totals;
}

} // namespace

std::string to_series_json(const Series& series) {
  const Context& context = series.context;
  Json json{{"schema_version", schema_version},
            {"context",
             {{"commit", context.commit},
              {"cpu", context.cpu},
              {"compiler", context.compiler},
              {"started", context.started},
              {"command", context.command},
              {"seed", context.seed}}},
            {"longest", series.longest},
            {"drift", Json::array()},
            {"spectra", Json::array()}};
  for (const Drift& drift : series.drift) json["drift"].push_back(json_of(drift));
  for (const RegimeSpectra& spectra : series.spectra) json["spectra"].push_back(json_of(spectra));
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Json read_series(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "series.json";
  if (!std::filesystem::exists(path)) return nullptr;
  Json json = Json::parse(text_of_file(path), nullptr, false);
  if (!json.is_object() || !json.contains("drift") || !json["drift"].is_array() || !json.contains("spectra") ||
      !json["spectra"].is_array() || !json.contains("schema_version"))
    throw std::invalid_argument(path.string() + " is not a series of this suite");
  if (json["schema_version"] != schema_version)
    throw std::invalid_argument(path.string() + " has schema version " + json["schema_version"].dump() + "; this program reads version 1");
  return json;
}

std::string to_text(const Series& series) {
  std::size_t width = 6;
  for (const Drift& drift : series.drift) width = std::max(width, drift.kernel.size());
  std::string text = fmt::format("{:<{}}  {:<22} {:>8}  {:<16} {:>12}  {:>12}\n", "kernel", width, "regime", "tokens", "verdict",
                                 "error/bound", "rms rel err");
  for (const Drift& drift : series.drift) {
    for (const DriftLength& length : drift.lengths) {
      const bool last = &length == &drift.lengths.back(), refused = length.finding.verdict == Verdict::not_supported;
      if (!last && length.finding.verdict == Verdict::passed) continue;
      if (!last && refused) continue;
      text += fmt::format("{:<{}}  {:<22} {:>8}  {:<16} {:>12}  {:>12}\n", drift.kernel, width, drift.regime, length.T,
                          spoken(length.finding.verdict), refused ? "-" : short_figure(length.finding.bound_util),
                          refused ? "-" : fmt::format("{:.2e}", length.finding.metrics.rms_rel_err));
      if (is_failure(length.finding.verdict)) text += fmt::format("  {}\n  ./kdacheck replay '{}'\n", length.finding.detail, length.replay);
    }
  }
  for (const Rule rule : {Rule::kda, Rule::dplr}) {
    const SpectraTotals totals = totals_of(series, rule);
    if (totals.samples == 0) continue;
    text += fmt::format("{} transitions of {}: {} outside their proved bounds; {} proved to grow; the heuristic warns of {}, {} of them "
                        "falsely, and is silent on {} that grow\n",
                        totals.samples, rule == Rule::kda ? "KDA" : "the general form", totals.outside, totals.grows, totals.warned,
                        totals.false_alarms, totals.silent);
  }
  return text;
}

int exit_status(const Series& series) {
  bool failed = false, passed = series.drift.empty();
  for (const Drift& drift : series.drift)
    for (const DriftLength& length : drift.lengths) {
      failed = failed || is_failure(length.finding.verdict);
      passed = passed || length.finding.verdict == Verdict::passed;
    }
  for (const Rule rule : {Rule::kda, Rule::dplr}) failed = failed || totals_of(series, rule).outside > 0;
  return failed ? 1 : passed ? 0 : 5;
}

} // namespace kdacheck
