#pragma once
// Orders in which fp32 numbers can be added. Every contract leaves them open, so a kernel is as right under each.

#include "faults.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace kdacheck::faults {

/// The sum of term(first) .. term(last - 1) by halves, as recursive summation does.
template <class Term> float pairwise_sum(std::int64_t first, std::int64_t last, Term& term) {
  if (last - first <= 0) return 0;
  if (last - first == 1) return term(first);
  const std::int64_t middle = first + (last - first) / 2;
  return pairwise_sum(first, middle, term) + pairwise_sum(middle, last, term);
}

/// start + term(first) + .. + term(last - 1). SumTree::lanes: eight sums with a stride of eight, as the lanes of a register or
/// the threads of a warp hold them, then by halves across.
template <class Term> float tree_sum(SumTree tree, std::int64_t first, std::int64_t last, Term&& term, float start = 0) {
  switch (tree) {
  case SumTree::falling: {
    float sum = 0;
    for (std::int64_t i = last - 1; i >= first; --i) sum += term(i);
    return sum + start;
  }
  case SumTree::pairwise: return start + pairwise_sum(first, last, term);
  case SumTree::lanes: {
    std::array<float, 8> lane{};
    for (std::int64_t i = first; i < last; ++i) lane[static_cast<std::size_t>((i - first) % 8)] += term(i);
    const auto of_lane = [&](std::int64_t i) { return lane[static_cast<std::size_t>(i)]; };
    return start + pairwise_sum(0, 8, of_lane);
  }
  default: {
    float sum = start;
    for (std::int64_t i = first; i < last; ++i) sum += term(i);
    return sum;
  }
  }
}

} // namespace kdacheck::faults
