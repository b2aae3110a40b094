#include "acceptance_rule.hpp"

#include "selection.hpp"

#include <charconv>
#include <cmath>
#include <optional>

namespace kdacheck {
namespace {

double number(std::string_view text, std::string_view rule) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || !(value >= 0) || std::isinf(value))
    throw UsageError("--rule: '" + std::string(text) + "' in '" + std::string(rule) + "' is not a finite number >= 0");
  return value;
}

struct Sums {
  double error = 0, reference_error = 0, truth = 0;       // sums of squares
  double x = 0, y = 0, xx = 0, yy = 0, xy = 0, count = 0; // of the run and the truth
};

bool accepts_tensor(const AcceptanceRule& rule, const std::vector<float>& run, const std::vector<double>& truth,
                    const std::vector<float>& reference) {
  if (run.size() != truth.size()) return false;
  Sums sums;
  for (std::size_t i = 0; i < run.size(); ++i) {
    const double x = run[i], y = truth[i];
    if (!std::isfinite(x)) return false;
    if (rule.kind == AcceptanceRule::Kind::allclose && !(std::fabs(x - y) <= rule.absolute + rule.relative * std::fabs(y))) return false;
    const double r = i < reference.size() ? reference[i] : y;
    sums.error += (x - y) * (x - y);
    sums.reference_error += (r - y) * (r - y);
    sums.truth += y * y;
    sums.x += x, sums.y += y, sums.xx += x * x, sums.yy += y * y, sums.xy += x * y, sums.count += 1;
  }
  switch (rule.kind) {
  case AcceptanceRule::Kind::rms_rel: return std::sqrt(sums.error) <= rule.threshold * std::sqrt(sums.truth) || sums.error == 0;
  case AcceptanceRule::Kind::twice_ref: return std::sqrt(sums.error) <= 2 * std::sqrt(sums.reference_error);
  case AcceptanceRule::Kind::pcc: {
    const double covariance = sums.count * sums.xy - sums.x * sums.y;
    const double variances = (sums.count * sums.xx - sums.x * sums.x) * (sums.count * sums.yy - sums.y * sums.y);
    return sums.error == 0 || covariance >= rule.threshold * std::sqrt(variances);
  }
  default: return true;
  }
}

} // namespace

AcceptanceRule parse_rule(std::string_view text) {
  const auto colon = text.find(':');
  const std::string_view kind = text.substr(0, colon);
  const std::string_view argument = colon == std::string_view::npos ? std::string_view{} : text.substr(colon + 1);
  if (kind == "twice_ref" && colon == std::string_view::npos) return {.kind = AcceptanceRule::Kind::twice_ref};
  if (kind == "rms_rel" || kind == "pcc") {
    const double threshold = number(argument, text);
    if (kind == "rms_rel") return {.kind = AcceptanceRule::Kind::rms_rel, .threshold = threshold};
    if (threshold > 1) throw UsageError("--rule: no correlation is above 1, as '" + std::string(text) + "' asks for");
    return {.kind = AcceptanceRule::Kind::pcc, .threshold = threshold};
  }
  if (kind == "allclose") {
    AcceptanceRule rule{.kind = AcceptanceRule::Kind::allclose};
    std::optional<double> absolute, relative;
    for (std::string_view rest = argument; !rest.empty();) {
      const std::string_view item = rest.substr(0, rest.find(','));
      rest = item.size() < rest.size() ? rest.substr(item.size() + 1) : std::string_view{};
      std::optional<double>* named = item.starts_with("atol=") ? &absolute : item.starts_with("rtol=") ? &relative : nullptr;
      if (!named) throw UsageError("--rule: allclose knows atol=X and rtol=X, not '" + std::string(item) + "'");
      if (*named) throw UsageError("--rule: '" + std::string(text) + "' names " + std::string(item.substr(0, 4)) + " twice");
      *named = number(item.substr(5), text);
    }
    if (!absolute && !relative) throw UsageError("--rule: '" + std::string(text) + "' names neither atol=X nor rtol=X");
    rule.absolute = absolute.value_or(0), rule.relative = relative.value_or(0);
    return rule;
  }
  throw UsageError("--rule: '" + std::string(text) + "' is none of allclose:atol=X,rtol=X  rms_rel:X  pcc:X  twice_ref");
}

bool accepts(const AcceptanceRule& rule, const Run& run, const Truth& truth, const Run& reference) {
  if (run.refused || !accepts_tensor(rule, run.o, truth.o.value, reference.o)) return false;
  return run.final_state.empty() || accepts_tensor(rule, run.final_state, truth.final_state.value, reference.final_state);
}

bool accepts_gradients(const AcceptanceRule& rule, const Run& run, const Truth& truth, const Run& reference) {
  if (run.refused) return false;
  for (Input input : all_inputs) {
    const auto i = static_cast<std::size_t>(input);
    if (!run.gradient[i].empty() && !accepts_tensor(rule, run.gradient[i], truth[input].value, reference.gradient[i])) return false;
  }
  return true;
}

} // namespace kdacheck
