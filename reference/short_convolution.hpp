#pragma once
// The causal depthwise convolution with swish, and its reverse mode, in any number type.
//   a_t = bias + sum_j w_j (.) u_{t - (width - 1) + j}    y_t = a_t sigmoid(a_t)
// Source: Kimi Linear technical report (arXiv 2510.26692), section 4.

#include "gate.hpp"
#include "matrix.hpp"

#include <cstdint>
#include <vector>

namespace kdacheck {

/// weight [channels,width], its last column for the current token; bias [channels] or empty.
template <Number N> struct Convolution {
  Matrix<N> weight;
  std::vector<N> bias;
};

/// The tokens that a convolution of one sequence sees: history [width-1,channels] over u [T,channels].
template <Number N> Matrix<N> with_history(const Matrix<N>& history, const Matrix<N>& u) {
  return matrix_of<N>(history.rows + u.rows, u.columns,
                      [&](std::int64_t i, std::int64_t c) { return i < history.rows ? history(i, c) : u(i - history.rows, c); });
}

/// a [T,channels] of `seen` [width-1+T,channels].
template <Number N> Matrix<N> convolved(const Convolution<N>& conv, const Matrix<N>& seen) {
  const std::int64_t width = conv.weight.columns;
  return matrix_of<N>(seen.rows - (width - 1), seen.columns, [&](std::int64_t t, std::int64_t c) {
    N sum = conv.bias.empty() ? N(0.0) : conv.bias[static_cast<std::size_t>(c)];
    for (std::int64_t j = 0; j < width; ++j) sum = sum + conv.weight(c, j) * seen(t + j, c);
    return sum;
  });
}

/// x sigmoid(x)
template <Number N> Matrix<N> swish(const Matrix<N>& x) {
  return matrix_of<N>(x.rows, x.columns, [&](std::int64_t i, std::int64_t j) { return N(x(i, j) * sigmoid(x(i, j))); });
}

/// d/dx of x sigmoid(x) = sigmoid(x) (1 + x sigmoid(-x))
template <Number N> Matrix<N> swish_reverse(const Matrix<N>& x, const Matrix<N>& d) {
  return matrix_of<N>(x.rows, x.columns, [&](std::int64_t i, std::int64_t j) {
    return N(d(i, j) * sigmoid(x(i, j)) * (N(1.0) + x(i, j) * sigmoid(N(-x(i, j)))));
  });
}

/// Adds to d_seen, weight and bias gradients what a's cotangent sends back.
template <Number N>
void convolved_reverse(const Convolution<N>& conv, const Matrix<N>& seen, const Matrix<N>& d_a, Matrix<N>& d_seen, Convolution<N>& d) {
  for (std::int64_t t = 0; t < d_a.rows; ++t)
    for (std::int64_t c = 0; c < d_a.columns; ++c) {
      for (std::int64_t j = 0; j < conv.weight.columns; ++j) {
        d_seen(t + j, c) = d_seen(t + j, c) + conv.weight(c, j) * d_a(t, c);
        d.weight(c, j) = d.weight(c, j) + seen(t + j, c) * d_a(t, c);
      }
      if (!d.bias.empty()) d.bias[static_cast<std::size_t>(c)] = d.bias[static_cast<std::size_t>(c)] + d_a(t, c);
    }
}

} // namespace kdacheck
