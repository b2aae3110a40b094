#include "compare_bits.hpp"

#include <bit>
#include <cmath>

#include <fmt/format.h>

namespace kdacheck {
namespace {

// Fills in what a row (b T + t) says about sequence and token.
void place_row(Place& place, const Problem& problem, std::int64_t chunk, std::int64_t row) {
  for (const Sequence& sequence : sequences(problem)) {
    if (row < sequence.first || row >= sequence.first + sequence.length) continue;
    place.sequence = sequence.index;
    place.token = row - sequence.first;
    place.chunk_position = chunk > 1 ? place.token % chunk : -1;
  }
}

Place place_in(std::string tensor, const Problem& problem, std::int64_t chunk, std::array<std::int64_t, 4> shape, bool is_state,
               std::size_t index) {
  Place place{.tensor = std::move(tensor)};
  const auto i = static_cast<std::int64_t>(index);
  const std::int64_t inner = i % shape[3], middle = i / shape[3] % shape[2], outer = i / (shape[3] * shape[2]);
  if (is_state) {
    place.sequence = outer / shape[1];
    place.head = outer % shape[1];
    place.row = middle;
    place.channel = inner;
  } else {
    place.head = middle;
    place.channel = inner;
    place_row(place, problem, chunk, outer);
  }
  return place;
}

template <class Tensor>
std::optional<Difference> difference(Tensor tensor, const Problem& problem, std::int64_t chunk, std::span<const float> expected,
                                     std::span<const float> got, Equality equality) {
  if (expected.empty() || got.empty()) return std::nullopt;
  if (expected.size() != got.size())
    return Difference{{.tensor = std::string(name(tensor))}, fmt::format("{} elements instead of {}", got.size(), expected.size())};
  for (std::size_t i = 0; i < got.size(); ++i)
    if (!same(expected[i], got[i], equality))
      return Difference{place_of(tensor, problem, chunk, i), fmt::format("{:.9g} instead of {:.9g}", got[i], expected[i])};
  return std::nullopt;
}

} // namespace

bool same(float left, float right, Equality equality) {
  if (std::bit_cast<std::uint32_t>(left) == std::bit_cast<std::uint32_t>(right)) return true;
  return equality == Equality::numbers && (left == right || (std::isnan(left) && std::isnan(right)));
}

Place place_of(Output output, const Problem& problem, std::int64_t chunk, std::size_t index) {
  return place_in(std::string(name(output)), problem, chunk, shape_of(output, problem.shape, sequence_count(problem)),
                  output == Output::final_state, index);
}

Place place_of(Input input, const Problem& problem, std::int64_t chunk, std::size_t index) {
  const std::string label = "d" + std::string(name(input));
  if (input == Input::A_log || input == Input::dt_bias) {
    const std::int64_t channels = input == Input::A_log ? 1 : problem.shape.K, i = static_cast<std::int64_t>(index);
    return {.tensor = label, .head = i / channels, .channel = input == Input::A_log ? -1 : i % channels};
  }
  return place_in(label, problem, chunk, shape_of(input, problem.shape, sequence_count(problem)), input == Input::initial_state, index);
}

std::optional<Difference> first_difference(const Problem& problem, std::int64_t chunk, const Run& expected, const Run& got,
                                           Equality equality) {
  for (Output output : all_outputs)
    if (auto found = difference(output, problem, chunk, expected[output], got[output], equality)) return found;
  for (Input input : all_inputs) {
    const auto i = static_cast<std::size_t>(input);
    if (auto found = difference(input, problem, chunk, expected.gradient[i], got.gradient[i], equality)) return found;
  }
  return std::nullopt;
}

} // namespace kdacheck
