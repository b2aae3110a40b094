#include "golden_bounds.hpp"

#include "../properties/proved_bound.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace kdacheck {
namespace {

/// Up to eight bits: the libraries of two machines may differ in a bound's last bits, not in these.
double rounded_up(double x) {
  if (!(x > 0) || std::isinf(x)) return x;
  int exponent = 0;
  const double fraction = std::frexp(x, &exponent);
  return std::ldexp(std::ceil(fraction * 256) / 256, exponent);
}

/// Error of storing x + e, |e| <= error, in a format.
double stored_error(double x, double error, Format format) {
  const double size = x + error;
  if (!(size <= largest(format))) return std::numeric_limits<double>::infinity();
  return error + unit_roundoff(format) * size + std::ldexp(1.0, least_exponent(format));
}

/// The largest |value| and radius of each group of `width` elements that follow one another.
std::vector<double> of_groups(const Enclosed& tensor, const std::vector<double>& bound, std::int64_t width, Format format) {
  if (tensor.empty()) return {};
  std::vector<double> result(bound.size());
  for (std::size_t group = 0; group < bound.size(); ++group) {
    double size = 0, radius = 0;
    for (std::int64_t j = 0; j < width; ++j) {
      const std::size_t i = group * static_cast<std::size_t>(width) + static_cast<std::size_t>(j);
      size = std::max(size, std::fabs(tensor.value[i])), radius = std::max(radius, tensor.radius[i]);
    }
    result[group] = rounded_up(stored_error(size + radius, bound[group] + radius, format));
  }
  return result;
}

} // namespace

std::vector<GoldenBound> golden_bounds(const Problem& problem, const InputFormats& formats, const Truth& truth) {
  const bool dplr = problem.options.rule == Rule::dplr;
  const auto text = [&](Format products) {
    return fmt::format("rule={} input={} gate_input={} beta_input={} operands={} accumulate=fp32 state=fp32 order={} chunk=64 output={}",
                       dplr ? "dplr" : "kda", name(formats.qkv), name(formats.gate), name(formats.beta), name(products),
                       dplr ? "residual_first" : "undeclared", name(products));
  };
  std::vector<Format> products{Format::fp32};
  if (storage_bytes(formats.qkv) == 2) products.push_back(formats.qkv);
  std::vector<GoldenBound> bounds;
  for (const Format format : products) {
    const ParsedContract parsed = parse_contract(text(format));
    if (!parsed.contract) throw std::logic_error(parsed.error);
    const ProvedBound proved = proved_bound(*parsed.contract, problem);
    bounds.push_back({.name = std::string(name(format)),
                      .contract = text(format),
                      .o = of_groups(truth.o, proved.token, problem.shape.V, format),
                      .final_state = of_groups(truth.final_state, proved.state_row, problem.shape.V, Format::fp32)});
  }
  return bounds;
}

} // namespace kdacheck
