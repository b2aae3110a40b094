#pragma once
// As pushed_chunks.hpp, for the general rule.

#include "pushed_chunks.hpp"

namespace kdacheck::testing {

class PushedGeneral : PushedSteps {
public:
  using PushedSteps::PushedSteps;

  Gradients run(const Problem& problem, std::int64_t forward_length, std::int64_t length) {
    return walk(*this, problem, forward_length, length);
  }

private:
  friend PushedSteps;

  /// e^{G_i - G_j}, or e^{G-_i - G_j}, split at the row's block or between.
  std::pair<double, double> split(std::int64_t i, std::int64_t j, std::int64_t c, bool before) const {
    const std::int64_t anchor = std::max(i / 16 * 16 - (before && i / 16 * 16 > j ? 1 : 0), j);
    const double G = before ? (i > 0 ? G_[at((i - 1) * K + c)] : 0) : G_[at(i * K + c)];
    return {exponential(G - G_[at(anchor * K + c)]), exponential(G_[at(anchor * K + c)] - G_[at(j * K + c)])};
  }
  double entry(const Matrix& rows, std::int64_t i, std::int64_t c) const { return rows[at((first_ + i) * K + c)]; }
  double query(std::int64_t i, std::int64_t c) const { return head_.scale * entry(head_.q, i, c); }
  double value(std::int64_t i, std::int64_t j) const { return operand(head_.v[at((first_ + i) * V + j)]); }

  void forward(std::int64_t first, std::int64_t n, const Matrix& S) {
    first_ = first, n_ = n;
    for (auto* m : {&G_, &bd_, &qd_, &kr_, &ar_, &W_}) m->assign(at(n * K), 0.0);
    for (auto* m : {&L_, &M_, &query_key_, &query_a_, &T_}) m->assign(at(n * n), 0.0);
    for (auto* m : {&R_, &mixed_, &w_}) m->assign(at(n * V), 0.0);
    for (std::int64_t c = 0; c < K; ++c) {
      double G = 0;
      for (std::int64_t i = 0; i < n; ++i) {
        G += entry(head_.g, i, c);
        G_[at(i * K + c)] = G * (1 + push_.cumsum * static_cast<double>(i) * 0x1p-24);
      }
    }
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t c = 0; c < K; ++c) {
        const double in = exponential(G_[at(i * K + c)]), before = i > 0 ? exponential(G_[at((i - 1) * K + c)]) : 1;
        const double rest = exponential(G_[at((n - 1) * K + c)] - G_[at(i * K + c)]);
        bd_[at(i * K + c)] = operand(entry(head_.b, i, c) * before), qd_[at(i * K + c)] = operand(query(i, c) * in);
        kr_[at(i * K + c)] = operand(entry(head_.k, i, c) * rest), ar_[at(i * K + c)] = operand(entry(head_.a, i, c) * rest);
      }
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j <= i; ++j) {
        const auto dot = [&](bool before, const Matrix& column) {
          return sum(0, K, [&](std::int64_t c) {
            const auto [up, down] = split(i, j, c, before);
            return score((before ? entry(head_.b, i, c) : query(i, c)) * up) * score(entry(column, j, c) * down);
          });
        };
        query_key_[at(i * n + j)] = operand(dot(false, head_.k)), query_a_[at(i * n + j)] = operand(dot(false, head_.a));
        if (j == i) continue;
        L_[at(i * n + j)] = rounded(contract_.solve, push_.solve, dot(true, head_.a)), M_[at(i * n + j)] = operand(dot(true, head_.k));
      }
    for (std::int64_t i = 0; i < n; ++i) {
      T_[at(i * n + i)] = 1;
      for (std::int64_t j = 0; j < i; ++j) {
        double total = 0, size = 0;
        for (std::int64_t m = j; m < i; ++m) {
          const double x = L_[at(i * n + m)] * T_[at(m * n + j)];
          total -= x, size += std::abs(x);
        }
        T_[at(i * n + j)] = solve_sum(contract_, push_.solve, total, size, i - j);
      }
    }
    for (double& x : T_) x = operand(x);
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < V; ++j) {
        const double mixed = sum(0, i, [&](std::int64_t m) { return M_[at(i * n + m)] * value(m, j); });
        const double read = sum(0, K, [&](std::int64_t c) { return bd_[at(i * K + c)] * operand(S[at(c * V + j)]); });
        mixed_[at(i * V + j)] = operand(mixed), R_[at(i * V + j)] = operand(mixed + read);
      }
    const auto times = [&](const Matrix& right, std::int64_t i, std::int64_t c, std::int64_t width) {
      return operand(sum(0, i + 1, [&](std::int64_t m) { return T_[at(i * n + m)] * right[at(m * width + c)]; }));
    };
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t c = 0; c < K; ++c) W_[at(i * K + c)] = times(bd_, i, c, K);
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < V; ++j)
        w_[at(i * V + j)] =
            way_.order == Order::wy
                ? operand(times(mixed_, i, j, V) + sum(0, K, [&](std::int64_t c) { return W_[at(i * K + c)] * operand(S[at(c * V + j)]); }))
                : times(R_, i, j, V);
    next_ = S;
    const bool stored = (first + n) % contract_.chunk == 0 || first + n == head_.tokens;
    for (std::int64_t c = 0; c < K; ++c)
      for (std::int64_t j = 0; j < V; ++j) {
        double& s = next_[at(c * V + j)];
        s = exponential(G_[at((n - 1) * K + c)]) * s + sum(0, 2 * n, [&](std::int64_t i) {
              return i < n ? kr_[at(i * K + c)] * value(i, j) : -ar_[at((i - n) * K + c)] * w_[at((i - n) * V + j)];
            });
        s = rounded(stored ? contract_.state : Format::fp32, push_.state, s);
      }
  }

  void reverse(const Problem& problem, std::int64_t first, const Matrix& S, Matrix& dS, Gradients& out) {
    const std::int64_t n = n_;
    const Matrix read = as_read(dS);
    const auto d_o = [&](std::int64_t i, std::int64_t j) { return operand(problem.d_o[at((first + i) * V + j)]); };
    const auto over_V = [&](auto&& term) { return sum(0, V, term); };
    Matrix dw(at(n * V)), Y(dw), dL(at(n * n)), dM(dL), of_a(dL), of_k(dL), dW(at(n * K)), d_read(dW);
    Matrix row_q(at(n * K)), row_b(row_q), column_a(row_q), column_k(row_q), end_a(row_q), end_k(row_q);
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < V; ++j)
        dw[at(i * V + j)] = -operand(sum(i, n, [&](std::int64_t m) { return query_a_[at(m * n + i)] * d_o(m, j); }) +
                                     sum(0, K, [&](std::int64_t c) { return ar_[at(i * K + c)] * operand(read[at(c * V + j)]); }));
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < V; ++j)
        Y[at(i * V + j)] = operand(sum(i, n, [&](std::int64_t m) { return T_[at(m * n + i)] * dw[at(m * V + j)]; }));
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < V; ++j)
        out.v[at((first + i) * V + j)] =
            single(sum(i, n, [&](std::int64_t m) { return query_key_[at(m * n + i)] * d_o(m, j); }) +
                   sum(0, K, [&](std::int64_t c) { return kr_[at(i * K + c)] * operand(read[at(c * V + j)]); }) +
                   sum(i + 1, n, [&](std::int64_t m) { return M_[at(m * n + i)] * Y[at(m * V + j)]; }));
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t c = 0; c < K; ++c)
        dW[at(i * K + c)] = operand(over_V([&](std::int64_t v) { return dw[at(i * V + v)] * operand(S[at(c * V + v)]); }));
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t c = 0; c < K; ++c)
        d_read[at(i * K + c)] = operand(sum(i, n, [&](std::int64_t m) { return T_[at(m * n + i)] * dW[at(m * K + c)]; }));
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j <= i; ++j) {
        const auto outer = [&](auto&& left, auto&& right) { return score(over_V([&](std::int64_t v) { return left(v) * right(v); })); };
        const auto Y_i = [&](std::int64_t v) { return Y[at(i * V + v)]; };
        const auto w_j = [&](std::int64_t v) { return w_[at(j * V + v)]; };
        const auto v_j = [&](std::int64_t v) { return value(j, v); };
        const auto o_i = [&](std::int64_t v) { return d_o(i, v); };
        of_a[at(i * n + j)] = -outer(o_i, w_j), of_k[at(i * n + j)] = outer(o_i, v_j);
        if (j < i) dL[at(i * n + j)] = -outer(Y_i, w_j), dM[at(i * n + j)] = outer(Y_i, v_j);
      }
    if (way_.by_inverse) {
      Matrix dT(at(n * n)), M(dT);
      for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j <= i; ++j)
          dT[at(i * n + j)] = operand(way_.erases ? sum(0, V + K,
                                                        [&](std::int64_t v) {
                                                          return v < V ? dw[at(i * V + v)] * mixed_[at(j * V + v)]
                                                                       : dW[at(i * K + v - V)] * bd_[at(j * K + v - V)];
                                                        })
                                                  : over_V([&](std::int64_t v) { return dw[at(i * V + v)] * R_[at(j * V + v)]; }));
      for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t b = 0; b <= i; ++b)
          M[at(i * n + b)] = operand(way_.right_first ? sum(0, b + 1, [&](std::int64_t m) { return dT[at(i * n + m)] * T_[at(b * n + m)]; })
                                                      : sum(i, n, [&](std::int64_t a) { return T_[at(a * n + i)] * dT[at(a * n + b)]; }));
      for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j < i; ++j)
          dL[at(i * n + j)] =
              -score(way_.right_first ? sum(i, n, [&](std::int64_t a) { return T_[at(a * n + i)] * M[at(a * n + j)]; })
                                      : sum(0, j + 1, [&](std::int64_t b) { return M[at(i * n + b)] * T_[at(j * n + b)]; }));
    }
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t c = 0; c < K; ++c) {
        const double in = exponential(G_[at(i * K + c)]), before = i > 0 ? exponential(G_[at((i - 1) * K + c)]) : 1;
        const double rest = exponential(G_[at((n - 1) * K + c)] - G_[at(i * K + c)]);
        row_q[at(i * K + c)] = single(in * over_V([&](std::int64_t v) { return d_o(i, v) * operand(S[at(c * V + v)]); }));
        row_b[at(i * K + c)] =
            single(before * (way_.erases ? d_read[at(i * K + c)]
                                         : over_V([&](std::int64_t v) { return Y[at(i * V + v)] * operand(S[at(c * V + v)]); })));
        end_a[at(i * K + c)] = -single(rest * over_V([&](std::int64_t v) { return w_[at(i * V + v)] * operand(read[at(c * V + v)]); }));
        end_k[at(i * K + c)] = single(rest * over_V([&](std::int64_t v) { return value(i, v) * operand(read[at(c * V + v)]); }));
      }
    column_a = end_a, column_k = end_k;
    for (std::int64_t c = 0; c < K; ++c) {
      for (std::int64_t i = 0; i < n; ++i) {
        const auto row = [&](bool before, const Matrix& with_a, const Matrix& with_k) {
          return sum(0, before ? 2 * i : 2 * i + 2, [&](std::int64_t both) {
            const std::int64_t j = both / 2;
            const auto [up, down] = split(i, j, c, before);
            return (both % 2 == 0 ? with_a : with_k)[at(i * n + j)] * up * score(entry(both % 2 == 0 ? head_.a : head_.k, j, c) * down);
          });
        };
        const auto column = [&](const Matrix& with_b, const Matrix& with_q) {
          return sum(2 * i, 2 * n, [&](std::int64_t both) {
            const std::int64_t m = both / 2;
            const bool before = both % 2 == 0;
            if (before && m == i) return 0.0;
            const auto [up, down] = split(m, i, c, before);
            return (before ? with_b : with_q)[at(m * n + i)] * down * score((before ? entry(head_.b, m, c) : query(m, c)) * up);
          });
        };
        row_q[at(i * K + c)] += row(false, of_a, of_k), row_b[at(i * K + c)] += row(true, dL, dM);
        column_a[at(i * K + c)] += column(dL, of_a), column_k[at(i * K + c)] += column(dM, of_k);
      }
      double g = exponential(G_[at((n - 1) * K + c)]) * over_V([&](std::int64_t v) { return S[at(c * V + v)] * read[at(c * V + v)]; });
      for (std::int64_t i = 0; i < n; ++i)
        g = single(g + single(entry(head_.a, i, c) * end_a[at(i * K + c)] + entry(head_.k, i, c) * end_k[at(i * K + c)]));
      for (std::int64_t i = n - 1; i >= 0; --i) {
        const std::size_t here = at(i * K + c), place = at((first + i) * K + c);
        const double own = query(i, c) * row_q[here] - entry(head_.a, i, c) * column_a[here] - entry(head_.k, i, c) * column_k[here];
        g = single(g + single(own) + (i + 1 < n ? single(entry(head_.b, i + 1, c) * row_b[here + at(K)]) : 0));
        out.g[place] = g, out.q[place] = single(head_.scale * row_q[here]), out.b[place] = single(row_b[here]);
        out.a[place] = single(column_a[here]), out.k[place] = single(column_k[here]);
      }
    }
    for (std::int64_t c = 0; c < K; ++c)
      for (std::int64_t j = 0; j < V; ++j) {
        double& d = dS[at(c * V + j)];
        d = exponential(G_[at((n - 1) * K + c)]) * d + sum(0, n, [&](std::int64_t i) { return qd_[at(i * K + c)] * d_o(i, j); }) +
            sum(0, n, [&](std::int64_t i) {
              return way_.erases ? W_[at(i * K + c)] * dw[at(i * V + j)] : bd_[at(i * K + c)] * Y[at(i * V + j)];
            });
        d = rounded(first % contract_.chunk == 0 ? contract_.state : Format::fp32, push_.adjoint, d);
      }
  }

  std::int64_t first_ = 0, n_ = 0;
  Matrix G_, bd_, qd_, kr_, ar_, L_, M_, query_key_, query_a_, T_, R_, mixed_, W_, w_, next_;
};

} // namespace kdacheck::testing
