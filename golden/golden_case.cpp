#include "golden_case.hpp"

#include "../reference/chunk_intermediates.hpp"
#include "../reference/truth.hpp"

#include <algorithm>
#include <cmath>

namespace kdacheck {
namespace {

using Extents = std::vector<std::int64_t>;

std::vector<std::byte> bytes_of(const std::vector<double>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return {bytes.begin(), bytes.end()};
}

double largest(const std::vector<double>& values) {
  double most = 0;
  for (const double x : values) most = std::max(most, std::fabs(x));
  return most;
}

/// Enough for a consumer of any precision: the radius is far below the low part's worth of a double.
bool sharp(const Enclosed& tensor) {
  if (tensor.empty()) return true;
  return *std::max_element(tensor.radius.begin(), tensor.radius.end()) <= 0x1p-60 * largest(tensor.value);
}

bool sharp(const Truth& truth) {
  return sharp(truth.o) && sharp(truth.final_state) &&
         std::all_of(truth.gradient.begin(), truth.gradient.end(), [](const Enclosed& g) { return sharp(g); });
}

Truth sharp_truth(const Problem& problem, bool gradients) {
  const auto compute = gradients ? &gradient_truth : &forward_truth;
  Truth truth = compute(problem, Arithmetic::double_double, 113);
  while (!sharp(truth)) {
    const auto next = more_precise(truth);
    if (!next || next->second > 512) break;
    truth = compute(problem, next->first, next->second);
  }
  return truth;
}

struct Collector {
  std::vector<GoldenTensor>& tensors;

  void pair(const std::string& label, const std::vector<double>& value, std::vector<double> low, const Extents& shape, double radius) {
    if (low.empty()) low.assign(value.size(), 0.0);
    tensors.push_back({{label + ".high", ElementType::F64, shape, bytes_of(value)}, radius});
    tensors.push_back({{label + ".low", ElementType::F64, shape, bytes_of(low)}, radius});
  }
  void bound(const std::string& label, const std::vector<double>& values, const Extents& shape) {
    if (!values.empty()) tensors.push_back({{label, ElementType::F64, shape, bytes_of(values)}, 0});
  }
  void enclosed(const std::string& label, const Enclosed& tensor, const std::array<std::int64_t, 4>& shape, std::size_t rank) {
    if (tensor.empty()) return;
    pair(label, tensor.value, tensor.low, Extents(shape.begin(), shape.begin() + static_cast<std::ptrdiff_t>(rank)),
         *std::max_element(tensor.radius.begin(), tensor.radius.end()));
  }
};

/// Tensors of one chunk after the other, chunk.0.T.high and so on: by sequence, value head and place in the sequence.
void add_intermediates(Collector& collect, const Problem& problem, std::int64_t C) {
  const std::int64_t K = problem.shape.K, V = problem.shape.V;
  std::int64_t index = 0;
  for (const ChunkIntermediates& chunk : chunk_intermediates(problem, C)) {
    const std::string prefix = "chunk." + std::to_string(index++) + ".";
    const std::int64_t n = chunk.length;
    const auto add = [&](const char* label, const Digits& digits, std::int64_t rows, std::int64_t columns) {
      if (!digits.empty()) collect.pair(prefix + label, digits.value, digits.low, {rows, columns}, -1);
    };
    add("G", chunk.G, n, K);
    add("S_start", chunk.start, K, V);
    add("Akk", chunk.Akk, n, n);
    add("Aqk", chunk.Aqk, n, n);
    add("T", chunk.T, n, n);
    add("W", chunk.W, n, K);
    add("U", chunk.U, n, V);
  }
}

/// The state after every token of the first sequence: each prefix's final state.
void add_states(Collector& collect, const Problem& problem) {
  const Shape& s = problem.shape;
  std::vector<double> values, lows;
  double radius = 0;
  for (std::int64_t length = 1; length <= s.T; ++length) {
    Problem prefix = problem;
    prefix.shape.T = length;
    const auto keep = [&](std::vector<float>& x, std::int64_t width) {
      x.resize(std::min(x.size(), static_cast<std::size_t>(length * width)));
    };
    keep(prefix.q, s.H * s.K), keep(prefix.k, s.H * s.K), keep(prefix.v, s.HV * s.V), keep(prefix.g, s.HV * s.K);
    keep(prefix.beta, s.HV), keep(prefix.a, s.HV * s.K), keep(prefix.b, s.HV * s.K);
    prefix.d_o.clear(), prefix.d_final_state.clear();
    const Enclosed state = sharp_truth(prefix, false).final_state;
    values.insert(values.end(), state.value.begin(), state.value.end());
    lows.insert(lows.end(), state.low.begin(), state.low.end());
    radius = std::max(radius, *std::max_element(state.radius.begin(), state.radius.end()));
  }
  collect.pair("states", values, lows, {s.T, s.HV, s.K, s.V}, radius);
}

} // namespace

bool holds_bounds(std::string_view tensor) { return tensor.find(".bound.") != std::string_view::npos; }

bool names_a_draw(std::string_view name_of_case, const Recipe& recipe, Format dtype) {
  const std::string start = recipe.regime + "." + std::string(name(dtype)) + ".";
  return regime_named(recipe.regime) && name_of_case.starts_with(start) && name_of_case.size() > start.size() &&
         name_of_case.find_first_not_of("0123456789", start.size()) == std::string_view::npos;
}

GoldenCase golden_case(std::string name_of_case, const Recipe& recipe, const GoldenContents& contents) {
  const Problem problem = make_problem(recipe, contents.formats);
  if (auto trouble = malformed(problem)) throw std::invalid_argument("golden case " + name_of_case + ": " + *trouble);
  if (contents.states && (problem.shape.B != 1 || !problem.cu_seqlens.empty()))
    throw std::invalid_argument("golden case " + name_of_case + ": states after every token need a single sequence");
  const bool gradients = contents.gradients && (!problem.d_o.empty() || !problem.d_final_state.empty());
  const Truth truth = sharp_truth(problem, gradients);
  GoldenCase result{.name = std::move(name_of_case),
                    .why = {},
                    .recipe = recipe,
                    .contents = contents,
                    .bounds = golden_bounds(problem, contents.formats, truth),
                    .tensors = {},
                    .metadata = metadata_of(problem),
                    .arithmetic = std::string(name(truth.arithmetic)),
                    .bits = truth.bits};
  for (OwnedTensor& tensor : tensors_of(problem)) result.tensors.push_back({std::move(tensor), 0});
  Collector collect{result.tensors};
  const std::int64_t N = sequence_count(problem);
  for (Output output : all_outputs) collect.enclosed(std::string(name(output)), truth[output], shape_of(output, problem.shape, N), 4);
  if (gradients)
    for (Input input : all_inputs)
      collect.enclosed("d" + std::string(name(input)), truth[input], shape_of(input, problem.shape, N), rank_of(input));
  for (const GoldenBound& bound : result.bounds)
    for (const BoundTensor& tensor : bound.tensors) collect.bound(tensor.of + ".bound." + bound.name, tensor.values, tensor.shape);
  if (contents.intermediates_chunk > 0) add_intermediates(collect, problem, contents.intermediates_chunk);
  if (contents.states) add_states(collect, problem);
  return result;
}

} // namespace kdacheck
