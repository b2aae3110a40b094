#pragma once
// Where two results that must be the same differ first.

#include "run.hpp"
#include "verdict.hpp"

#include <optional>
#include <span>
#include <string>

namespace kdacheck {

enum class Equality : std::uint8_t {
  bits,    ///< the same bits: NaN payloads and signs of zero too
  numbers, ///< the same numbers: 0 = -0, any NaN = any NaN
};

struct Difference {
  Place place;
  std::string values; ///< "1.5 instead of 1.25"
};

bool same(float, float, Equality);

/// Place of element `index` of an output or (a gradient is named after its primal) of an input's shape.
Place place_of(Output, const Problem&, std::int64_t chunk, std::size_t index);
Place place_of(Input, const Problem&, std::int64_t chunk, std::size_t index);

/// First element in which o, final_state or a gradient of `got` is not that of `expected`. Tensors that either run does
/// not have are left out. `problem` is the one that both runs answer.
std::optional<Difference> first_difference(const Problem& problem, std::int64_t chunk, const Run& expected, const Run& got, Equality);

} // namespace kdacheck
