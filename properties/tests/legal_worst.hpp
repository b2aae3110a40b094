#pragma once
// A chunkwise evaluation of KDA in fp64 that errs as much as its contract allows, everywhere in the direction that is
// asked for: what a proved bound must hold.

#include "../budget_head.hpp"
#include "pushed.hpp"

#include <array>
#include <cmath>
#include <vector>

namespace kdacheck::testing {

/// Direction in which each kind of step errs: -1, 0 (exact) or 1.
struct Pushes {
  double operand = 0, score = 0, cumsum = 0, exponential = 0, solve = 0, accumulate = 0, state = 0, beta = 0, gate = 0, norm = 0;
  static constexpr std::array members{&Pushes::operand,    &Pushes::score, &Pushes::cumsum, &Pushes::exponential, &Pushes::solve,
                                      &Pushes::accumulate, &Pushes::state, &Pushes::beta,   &Pushes::gate,        &Pushes::norm};
};

struct Evaluated {
  std::vector<double> o, state; ///< [tokens,V], [K,V]
};

class LegalWorst {
public:
  LegalWorst(const Contract& contract, const Head& head, const Pushes& pushes) : contract_(contract), head_(head), push_(pushes) {}

  Evaluated run(Order order, std::int64_t length) {
    Evaluated result;
    result.state = head_.state;
    for (std::int64_t first = 0; first < head_.tokens; first += length) chunk(order, first, std::min(length, head_.tokens - first), result);
    return result;
  }

private:
  using Matrix = std::vector<double>;

  /// x as stored in a format: by a whole unit nearer to zero if truncated, or pushed by half a unit.
  double rounded(Format format, double push, double x) const {
    const bool cut = contract_.truncate && format == Format::tf32;
    const double u = unit_roundoff(format), flush = format == Format::fp16 ? 0x1p-25 : 0;
    if (cut) return push == 0 ? x : x * (1 - 2 * u);
    return x + push * std::max(u * std::abs(x), std::abs(x) < 0x1p-14 ? flush : 0.0);
  }
  double operand(double x) const { return rounded(contract_.operands, push_.operand, x); }
  double score(double x) const { return rounded(contract_.scores, push_.score, x); }
  /// A sum of n products of this total size, each addition rounded the same way.
  double summed(double sum, double size, std::int64_t n) const {
    return sum + push_.accumulate * static_cast<double>(n) * unit_roundoff(contract_.accumulate) * size;
  }
  double exponential(double x) const { return std::exp(x) * (1 + push_.exponential * 2 * contract_.exp_ulp * 0x1p-24); }

  void chunk(Order order, std::int64_t first, std::int64_t n, Evaluated& result) {
    const std::int64_t K = head_.K, V = head_.V;
    const auto at = [](std::int64_t i, std::int64_t j, std::int64_t width) { return static_cast<std::size_t>(i * width + j); };
    Matrix G(static_cast<std::size_t>(n * K)), k(G), q(G), A(static_cast<std::size_t>(n * n)), S(result.state);
    Matrix L(A), T(A), Z(static_cast<std::size_t>(n * V)), U(Z), N(A);
    std::vector<double> beta;
    const double of_norm = head_.normalised ? push_.norm * (0.5 * static_cast<double>(K) * unit_roundoff(contract_.accumulate)) : 0;
    for (std::int64_t c = 0; c < K; ++c) {
      double sum = 0;
      for (std::int64_t i = 0; i < n; ++i) {
        const std::size_t entry = at(first + i, c, K);
        sum += head_.g[entry] + push_.gate * head_.gate_error[entry] + push_.cumsum * head_.sum_error[entry];
        G[at(i, c, K)] = sum * (1 + push_.cumsum * static_cast<double>(i) * unit_roundoff(contract_.cumsum));
        k[at(i, c, K)] = head_.k[entry] * (1 + of_norm), q[at(i, c, K)] = head_.scale * head_.q[entry] * (1 + of_norm);
      }
    }
    for (std::int64_t i = 0; i < n; ++i) {
      const auto t = static_cast<std::size_t>(first + i);
      beta.push_back(head_.beta[t] * (1 + push_.beta * head_.beta_error[t]));
    }
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j <= i; ++j) {
        const std::int64_t anchor = i / 16 * 16 > j ? i / 16 * 16 : j; // between the rows
        double key = 0, query = 0, key_size = 0, query_size = 0;
        for (std::int64_t c = 0; c < K; ++c) {
          const double row = exponential(G[at(i, c, K)] - G[at(anchor, c, K)]), column = exponential(G[at(anchor, c, K)] - G[at(j, c, K)]);
          const double right = score(k[at(j, c, K)] * column), a = score(k[at(i, c, K)] * row) * right,
                       b = score(q[at(i, c, K)] * row) * right;
          key += a, query += b, key_size += std::abs(a), query_size += std::abs(b);
        }
        A[at(i, j, n)] = operand(summed(query, query_size, K));
        if (j < i) L[at(i, j, n)] = rounded(contract_.solve, push_.solve, beta[static_cast<std::size_t>(i)] * summed(key, key_size, K));
      }
    for (std::int64_t i = 0; i < n; ++i) {
      T[at(i, i, n)] = 1;
      for (std::int64_t j = 0; j < i; ++j) {
        double sum = 0, size = 0;
        for (std::int64_t m = j; m < i; ++m) sum -= L[at(i, m, n)] * T[at(m, j, n)], size += std::abs(L[at(i, m, n)] * T[at(m, j, n)]);
        // a residual that the class permits: every addition of the substitution rounds the same way
        T[at(i, j, n)] = solve_sum(contract_, push_.solve, sum, size, i - j);
      }
    }
    for (double& x : T) x = x == 0 ? 0 : operand(x); // none is there above the diagonal
    for (double& s : S) s = operand(s);
    Matrix kd(G), kr(G), qd(G);
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t c = 0; c < K; ++c) {
        const std::size_t entry = at(i, c, K);
        kd[entry] = operand(k[entry] * exponential(G[entry])), qd[entry] = operand(q[entry] * exponential(G[entry]));
        kr[entry] = operand(k[entry] * exponential(G[at(n - 1, c, K)] - G[entry]));
      }
    const auto times = [&](const Matrix& left, std::int64_t rows, std::int64_t depth, const Matrix& right, std::int64_t width,
                           const Matrix* start) {
      Matrix out(static_cast<std::size_t>(rows * width));
      for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < width; ++j) {
          double sum = start ? (*start)[at(i, j, width)] : 0, size = std::abs(sum);
          for (std::int64_t m = 0; m < depth; ++m) {
            const double term = left[at(i, m, depth)] * right[at(m, j, width)];
            sum += term, size += std::abs(term);
          }
          out[at(i, j, width)] = summed(sum, size, depth);
        }
      return out;
    };
    if (order == Order::wy) {
      Matrix B(G), values(Z);
      for (std::int64_t i = 0; i < n; ++i) {
        for (std::int64_t c = 0; c < K; ++c) B[at(i, c, K)] = operand(beta[static_cast<std::size_t>(i)] * kd[at(i, c, K)]);
        for (std::int64_t j = 0; j < V; ++j)
          values[at(i, j, V)] = operand(beta[static_cast<std::size_t>(i)] * head_.v[at(first + i, j, V)]);
      }
      Matrix W = times(T, n, n, B, K, nullptr);
      U = times(T, n, n, values, V, nullptr);
      for (double& x : W) x = -operand(x);
      for (double& x : U) x = operand(x);
      U = times(W, n, K, S, V, &U);
    } else {
      Matrix minus(Z), negative(kd);
      for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j < V; ++j) minus[at(i, j, V)] = head_.v[at(first + i, j, V)];
      for (double& x : negative) x = -x;
      Z = times(negative, n, K, S, V, &minus);
      for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j < V; ++j) Z[at(i, j, V)] = operand(beta[static_cast<std::size_t>(i)] * Z[at(i, j, V)]);
      U = times(T, n, n, Z, V, nullptr);
    }
    for (double& x : U) x = operand(x);
    const Matrix read = times(qd, n, K, S, V, nullptr), o = times(A, n, n, U, V, &read);
    result.o.insert(result.o.end(), o.begin(), o.end());
    Matrix turned(kr.size()), kept(result.state);
    for (std::int64_t c = 0; c < K; ++c) {
      for (std::int64_t i = 0; i < n; ++i) turned[at(c, i, n)] = kr[at(i, c, K)];
      const double whole = exponential(G[at(n - 1, c, K)]);
      for (std::int64_t j = 0; j < V; ++j) kept[at(c, j, V)] *= whole;
    }
    result.state = times(turned, K, n, U, V, &kept);
    const std::int64_t end = first + n;
    const bool stored = end % contract_.chunk == 0 || end == head_.tokens;
    for (double& s : result.state) s = rounded(stored ? contract_.state : Format::fp32, push_.state, s);
  }

  const Contract& contract_;
  const Head& head_;
  Pushes push_;
};

} // namespace kdacheck::testing
