#pragma once
// What one step of the recurrence of one value head sees, in any number type.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace kdacheck {

/// A real number type: double, long double, double-double, Boost.Multiprecision, dual numbers; for everything but the
/// gates also an exact rational.
template <class N>
concept Number = std::copyable<N> && std::constructible_from<N, double> && requires(const N x) {
  { x + x } -> std::convertible_to<N>;
  { x - x } -> std::convertible_to<N>;
  { x* x } -> std::convertible_to<N>;
  { x / x } -> std::convertible_to<N>;
  { -x } -> std::convertible_to<N>;
  { x < x } -> std::convertible_to<bool>;
  { x == x } -> std::convertible_to<bool>;
};

/// One token of one value head after gates, beta map and normalisation.
template <Number N> struct Token {
  std::vector<N> q, k;      ///< [K]
  std::vector<N> v;         ///< [V]
  std::vector<N> log_decay; ///< [K] ln alpha <= 0; the recurrence does not read it
  std::vector<N> alpha;     ///< [K]
  N beta{0.0};              ///< KDA only
  std::vector<N> a, b;      ///< [K], DPLR only
};

/// Derivatives of a loss with respect to one token. `log_decay` is d/d ln alpha = alpha (.) d/d alpha: finite at alpha = 0.
template <Number N> struct TokenGradient {
  std::vector<N> q, k, v, log_decay;
  N beta{0.0};
  std::vector<N> a, b;
};

/// K x V matrix, row-major: the memory S of one value head, or the derivative of a loss with respect to it.
template <Number N> struct State {
  std::int64_t K = 0, V = 0;
  std::vector<N> element;

  State() = default;
  State(std::int64_t rows, std::int64_t columns) : K(rows), V(columns), element(static_cast<std::size_t>(rows * columns), N(0.0)) {}
  N& operator()(std::int64_t i, std::int64_t j) { return element[static_cast<std::size_t>(i * V + j)]; }
  const N& operator()(std::int64_t i, std::int64_t j) const { return element[static_cast<std::size_t>(i * V + j)]; }
};

} // namespace kdacheck
