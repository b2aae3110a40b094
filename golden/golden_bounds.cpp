#include "golden_bounds.hpp"

#include "../properties/proved/proved_bound.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace kdacheck {
namespace {

/// Up to eight bits: a bound's others say nothing, and files of few bits pack well.
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

/// Groups of elements that follow one another, each held by one bound.
std::vector<double> of_groups(const Enclosed& tensor, const std::vector<double>& bound, Format format) {
  std::vector<double> result(bound.size());
  const std::size_t width = bound.empty() ? 0 : tensor.value.size() / bound.size();
  for (std::size_t group = 0; group < bound.size(); ++group) {
    double size = 0, radius = 0;
    for (std::size_t i = group * width; i < (group + 1) * width; ++i)
      size = std::max(size, std::fabs(tensor.value[i])), radius = std::max(radius, tensor.radius[i]);
    result[group] = rounded_up(stored_error(size + radius, bound[group] + radius, format));
  }
  return result;
}

/// Adds it, if there is something to hold and anything is known.
void add(GoldenBound& bound, std::string of, const Enclosed& tensor, const std::vector<double>& proved, std::vector<std::int64_t> shape,
         Format format) {
  if (tensor.empty() || proved.empty()) return;
  bound.tensors.push_back({std::move(of), std::move(shape), of_groups(tensor, proved, format)});
}

Contract contract_of(const std::string& text) {
  const ParsedContract parsed = parse_contract(text);
  if (!parsed.contract) throw std::logic_error(parsed.error);
  return *parsed.contract;
}

/// Leading indices of a gradient that its groups keep: budget.hpp.
std::vector<std::int64_t> groups_of(Input input, const Shape& shape, std::int64_t N) {
  const auto all = shape_of(input, shape, N);
  const auto kept = static_cast<std::ptrdiff_t>(input == Input::A_log ? 1 : input == Input::dt_bias ? 2 : 3);
  return {all.begin(), all.begin() + kept};
}

GoldenBound gradient_bound(const Problem& problem, const std::string& text, const Truth& truth) {
  GoldenBound bound{.name = "fp32.recurrence", .contract = text, .tensors = {}};
  const ProvedBound proved = proved_gradient_bound(contract_of(text), problem);
  for (Input input : all_inputs) {
    if (problem.options.l2norm && (input == Input::q || input == Input::k)) continue; // the sets that are kept were made without
    const std::vector<double>& error = proved.gradient[static_cast<std::size_t>(input)];
    if (std::any_of(error.begin(), error.end(), [](double x) { return std::isfinite(x); }))
      add(bound, "d" + std::string(name(input)), truth[input], error, groups_of(input, problem.shape, sequence_count(problem)),
          Format::fp32);
  }
  return bound;
}

} // namespace

std::vector<GoldenBound> golden_bounds(const Problem& problem, const InputFormats& formats, const Truth& truth) {
  const bool dplr = problem.options.rule == Rule::dplr;
  const auto text = [&](Format products, std::string_view order, int chunk) {
    return fmt::format("rule={} input={} gate_input={} beta_input={} operands={} accumulate=fp32 state=fp32 order={} chunk={} output={}",
                       dplr ? "dplr" : "kda", name(formats.qkv), name(formats.gate), name(formats.beta), name(products), order, chunk,
                       name(products));
  };
  const auto& [B, T, H, HV, K, V] = problem.shape;
  std::vector<Format> products{Format::fp32};
  if (storage_bytes(formats.qkv) == 2) products.push_back(formats.qkv);
  std::vector<GoldenBound> bounds;
  for (const Format format : products) {
    GoldenBound bound{
        .name = std::string(name(format)), .contract = text(format, dplr ? "residual_first" : "undeclared", 64), .tensors = {}};
    const ProvedBound proved = proved_bound(contract_of(bound.contract), problem);
    add(bound, "o", truth.o, proved.token, {B, T, HV}, format);
    add(bound, "final_state", truth.final_state, proved.state_row, {sequence_count(problem), HV, K}, Format::fp32);
    bounds.push_back(std::move(bound));
  }
  if (std::any_of(truth.gradient.begin(), truth.gradient.end(), [](const Enclosed& gradient) { return !gradient.empty(); }))
    bounds.push_back(gradient_bound(problem, text(Format::fp32, "recurrence", 1) + " gradient=fp32", truth));
  return bounds;
}

} // namespace kdacheck
