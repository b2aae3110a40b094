#include "recipe_fields.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace kdacheck {

std::int64_t sequence_count(const Recipe& recipe) {
  return recipe.lengths.empty() ? recipe.shape.B : static_cast<std::int64_t>(recipe.lengths.size());
}

std::optional<std::string> malformed(const Recipe& recipe) {
  const Shape& s = recipe.shape;
  constexpr std::int64_t most = std::int64_t{1} << 31;
  const auto outside = [](std::int64_t size, std::int64_t least) { return size < least || size > most; };
  if (outside(s.B, 1) || outside(s.T, 0) || outside(s.H, 1) || outside(s.HV, 1) || outside(s.K, 1) || outside(s.V, 1))
    return "shape: B, H, HV, K and V must be at least 1, T at least 0, and none above 2^31";
  if (s.HV % s.H != 0) return "shape: HV (" + std::to_string(s.HV) + ") must be a multiple of H (" + std::to_string(s.H) + ")";
  if (!recipe.lengths.empty()) {
    if (s.B != 1) return "lengths: packed sequences need B = 1, not " + std::to_string(s.B);
    if (std::any_of(recipe.lengths.begin(), recipe.lengths.end(), [&](std::int64_t length) { return outside(length, 0); }))
      return "lengths: each must be at least 0 and none above 2^31";
    const auto sum = std::accumulate(recipe.lengths.begin(), recipe.lengths.end(), std::int64_t{0});
    if (sum != s.T) return "lengths: their sum (" + std::to_string(sum) + ") must equal T (" + std::to_string(s.T) + ")";
  }
  // 2^36 elements: more than any machine that this runs on holds.
  const auto size = [](auto... extents) { return (static_cast<double>(extents) * ...); };
  const auto N = sequence_count(recipe);
  if (size(s.B, s.T, s.HV, std::max(s.K, s.V)) > 0x1p36 || size(N, s.HV, s.K, s.V) > 0x1p36)
    return "shape: a tensor would have more than 2^36 elements";
  if (!(recipe.options.lower_bound <= 0)) return "lower_bound must be a number <= 0";
  std::optional<std::string> why;
  each_field(
      [&](std::string_view field, const auto& value) {
        if constexpr (std::is_same_v<std::remove_cvref_t<decltype(value)>, float>)
          if (!std::isfinite(value)) why = std::string(field) + " is not finite";
      },
      recipe);
  if (!why && recipe.decay < 0) why = "decay must not be negative";
  return why;
}

} // namespace kdacheck
