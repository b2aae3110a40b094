#pragma once
// Ways to read a problem other than exactly, for derivatives of the forward pass.

#include "../effective.hpp"

#include <array>
#include <cstdint>
#include <random>
#include <vector>

namespace kdacheck {

/// One direction per tensor, entries in [-1, 1]; empty for tensors that do not move.
template <Number N> struct Direction {
  std::array<std::vector<N>, all_inputs.size()> tensor;
  const std::vector<N>& operator[](Input input) const { return tensor[static_cast<std::size_t>(input)]; }
  std::vector<N>& operator[](Input input) { return tensor[static_cast<std::size_t>(input)]; }
};

/// Random entries for one tensor of the problem.
template <Number N> void move_along(Direction<N>& direction, const Problem& problem, Input input, std::uint64_t seed) {
  std::mt19937_64 bits(seed);
  direction[input].clear();
  for (std::size_t i = 0; i < problem[input].size(); ++i)
    direction[input].push_back(N(static_cast<double>(static_cast<std::int64_t>(bits())) * 0x1p-63));
}

/// The problem moved by `step` along a direction, far below what fp32 resolves.
template <Number N> struct Moved {
  const Problem& problem;
  const Direction<N>& direction;
  N step;
  N operator()(Input input, std::size_t index) const {
    const N x(static_cast<double>(problem[input][index]));
    return direction[input].empty() ? x : N(x + step * direction[input][index]);
  }
};

/// <d_o, o> + <d_final_state, S_final>
template <Number N> N loss(const Problem& problem, const std::vector<N>& o, const std::vector<N>& final_state) {
  N sum(0.0);
  for (std::size_t i = 0; i < problem.d_o.size(); ++i) sum = sum + N(static_cast<double>(problem.d_o[i])) * o[i];
  for (std::size_t i = 0; i < problem.d_final_state.size(); ++i)
    sum = sum + N(static_cast<double>(problem.d_final_state[i])) * final_state[i];
  return sum;
}

} // namespace kdacheck
