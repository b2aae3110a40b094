#pragma once
// The reverse mode of the chunk algebra of KDA in fp64, erring as much as a contract allows, in the direction that is asked for and by any
// of the ways that it leaves open: what the proved bound of gradients in chunks must hold.

#include "../../reference/problem.hpp"
#include "../budget_head.hpp"
#include "pushed.hpp"

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <utility>
#include <vector>

namespace kdacheck::testing {

inline std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

using Matrix = std::vector<double>;

/// Direction in which each kind of step errs: -1, 0 (exact) or 1.
struct Push {
  double operand = 0, score = 0, exponential = 0, cumsum = 0, solve = 0, accumulate = 0, state = 0, adjoint = 0, single = 0, stored = 0;
  static constexpr std::array members{&Push::operand,    &Push::score, &Push::exponential, &Push::cumsum, &Push::solve,
                                      &Push::accumulate, &Push::state, &Push::adjoint,     &Push::single, &Push::stored};
};

/// Which of the ways that the bound covers.
struct Way {
  Order order = Order::residual_first;
  bool by_inverse = false;  ///< dL and dbeta by way of dT
  bool right_first = false; ///< dT T^T before T^T dT
  bool twice = false;       ///< dAkk = -W U^T of a W = beta dZ whose dZ is an operand
  bool substitutes = false; ///< U and dZ without T, in the solve's format
  bool erases = false;      ///< dk, dbeta, dT and the carry by way of dW
};

struct Gradients {
  Matrix q, k, v, g, beta, a, b, state; ///< a, b: DPLR
};

/// That gradients of an evaluation which does not err are `exact`, but for fp64's own roundings.
inline void check_unpushed(const std::vector<double>& exact, const Matrix& mine, Input input) {
  REQUIRE(mine.size() == exact.size());
  for (std::size_t i = 0; i < mine.size(); ++i) {
    INFO(name(input) << " " << i);
    CHECK(std::abs(mine[i] - exact[i]) <= 1e-12);
  }
}

/// Elementary steps, each of which errs as far as it may.
class PushedSteps {
public:
  PushedSteps(const Contract& contract, const Head& head, const Push& push, const Way& way)
      : contract_(contract), head_(head), push_(push), way_(way), K(head.K), V(head.V) {}

protected:
  /// Forward in chunks of one length, back in chunks of another: states that the forward pass did not keep follow from the last that it
  /// kept. `chunks` is the derived object, whose forward() leaves the state in next_.
  template <class Chunks> Gradients walk(Chunks& chunks, const Problem& problem, std::int64_t forward_length, std::int64_t length) const {
    const std::int64_t T = head_.tokens;
    Gradients out;
    for (auto* rows : {&out.q, &out.k, &out.g, &out.a, &out.b}) rows->assign(at(T * K), 0.0);
    out.v.assign(at(T * V), 0.0), out.beta.assign(at(T), 0.0);
    std::map<std::int64_t, Matrix> states{{0, head_.state}};
    for (std::int64_t step : {forward_length, length})
      for (std::int64_t first = 0; first < T; first += step) {
        if (states.contains(first + step)) continue;
        chunks.forward(first, std::min(step, T - first), states.at(first));
        states[first + step] = chunks.next_;
      }
    Matrix dS(problem.d_final_state.begin(), problem.d_final_state.end());
    for (std::int64_t first = (T - 1) / length * length; first >= 0; first -= length) {
      const Matrix S = as_read(states.at(first));
      chunks.forward(first, std::min(length, T - first), S);
      chunks.reverse(problem, first, S, dS, out);
    }
    out.state = dS;
    return out;
  }
  double rounded(Format format, double push, double x) const {
    if (format != Format::fp16) return x * (1 + push * unit_roundoff(format));
    const double near = x + push * std::max(0x1p-11 * std::abs(x), std::abs(x) < 0x1p-14 ? 0x1p-25 : 0.0); // fp16's subnormals
    return std::abs(near) > 65504 ? std::copysign(HUGE_VAL, near) : near;
  }
  double operand(double x) const { return rounded(contract_.operands, push_.operand, x); }
  double score(double x) const { return rounded(contract_.scores, push_.score, x); }
  double single(double x) const { return rounded(Format::fp32, push_.single, x); }
  /// A stored state or cotangent as gradients read it.
  Matrix as_read(Matrix from) const {
    if (unit_roundoff(contract_.gradient_state) > 0x1p-24)
      for (double& x : from) x = rounded(contract_.gradient_state, push_.stored, x);
    return from;
  }
  double exponential(double x) const { return std::exp(x) * (1 + push_.exponential * 2 * contract_.exp_ulp * 0x1p-24); }
  template <class Term> double sum(std::int64_t from, std::int64_t to, Term&& term) const {
    double total = 0, size = 0;
    for (std::int64_t i = from; i < to; ++i) {
      const double x = term(i);
      total += x, size += std::abs(x);
    }
    return total + push_.accumulate * static_cast<double>(to - from) * unit_roundoff(contract_.accumulate) * size;
  }

  const Contract& contract_;
  const Head& head_;
  Push push_;
  Way way_;
  std::int64_t K, V;
};

class PushedChunks : PushedSteps {
public:
  using PushedSteps::PushedSteps;

  Gradients run(const Problem& problem, std::int64_t forward_length, std::int64_t length) {
    return walk(*this, problem, forward_length, length);
  }

private:
  friend PushedSteps;

  /// e^{G_i - G_j}, split at the row's block or between.
  std::pair<double, double> split(std::int64_t i, std::int64_t j, std::int64_t c) const {
    const std::int64_t anchor = std::max(i / 16 * 16, j);
    return {exponential(G_[at(i * K + c)] - G_[at(anchor * K + c)]), exponential(G_[at(anchor * K + c)] - G_[at(j * K + c)])};
  }
  double key(std::int64_t i, std::int64_t c) const { return head_.k[at((first_ + i) * K + c)]; }
  double query(std::int64_t i, std::int64_t c) const { return head_.scale * head_.q[at((first_ + i) * K + c)]; }
  double beta(std::int64_t i) const { return head_.beta[at(first_ + i)]; }

  /// Row i of a solution, of which `solution` holds those in [from, to).
  template <class Factor>
  double substituted(std::int64_t i, std::int64_t j, const Matrix& right, const Matrix& solution, std::int64_t from, std::int64_t to,
                     Factor&& factor) const {
    double total = right[at(i * V + j)], size = std::abs(total);
    for (std::int64_t m = from; m < to; ++m) {
      const double x = factor(m) * solution[at(m * V + j)];
      total -= x, size += std::abs(x);
    }
    return solve_sum(contract_, push_.solve, total, size, to - from + 1);
  }

  void forward(std::int64_t first, std::int64_t n, const Matrix& S) {
    first_ = first, n_ = n;
    for (auto* m : {&G_, &kd_, &qd_, &kr_}) m->assign(at(n * K), 0.0);
    for (auto* m : {&A_, &Akk_, &T_}) m->assign(at(n * n), 0.0);
    for (auto* m : {&R_, &U_, &Z_}) m->assign(at(n * V), 0.0);
    L_.assign(at(n * n), 0.0);
    for (std::int64_t c = 0; c < K; ++c) {
      double G = 0;
      for (std::int64_t i = 0; i < n; ++i) {
        G += head_.g[at((first + i) * K + c)];
        G_[at(i * K + c)] = G * (1 + push_.cumsum * static_cast<double>(i) * 0x1p-24);
      }
    }
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t c = 0; c < K; ++c) {
        const std::size_t entry = at(i * K + c);
        kd_[entry] = operand(key(i, c) * exponential(G_[entry])), qd_[entry] = operand(query(i, c) * exponential(G_[entry]));
        kr_[entry] = operand(key(i, c) * exponential(G_[at((n - 1) * K + c)] - G_[entry]));
      }
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j <= i; ++j) {
        const auto pair = [&](double x, std::int64_t c) {
          return score(x * split(i, j, c).first) * score(key(j, c) * split(i, j, c).second);
        };
        A_[at(i * n + j)] = operand(sum(0, K, [&](std::int64_t c) { return pair(query(i, c), c); }));
        if (j == i) continue;
        Akk_[at(i * n + j)] = sum(0, K, [&](std::int64_t c) { return pair(key(i, c), c); });
        L_[at(i * n + j)] = rounded(contract_.solve, push_.solve, beta(i) * Akk_[at(i * n + j)]);
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
        R_[at(i * V + j)] =
            head_.v[at((first + i) * V + j)] - sum(0, K, [&](std::int64_t c) { return kd_[at(i * K + c)] * operand(S[at(c * V + j)]); });
        Z_[at(i * V + j)] = operand(beta(i) * R_[at(i * V + j)]);
      }
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < V; ++j)
        U_[at(i * V + j)] =
            operand(way_.substitutes ? substituted(i, j, Z_, U_, 0, i, [&](std::int64_t m) { return L_[at(i * n + m)]; })
                                     : sum(0, i + 1, [&](std::int64_t m) { return T_[at(i * n + m)] * Z_[at(m * V + j)]; }));
    if (way_.order == Order::wy) erase(n, S);
    next_ = S;
    const bool stored = (first + n) % contract_.chunk == 0 || first + n == head_.tokens;
    for (std::int64_t c = 0; c < K; ++c)
      for (std::int64_t j = 0; j < V; ++j) {
        double& s = next_[at(c * V + j)];
        s = exponential(G_[at((n - 1) * K + c)]) * s + sum(0, n, [&](std::int64_t i) { return kr_[at(i * K + c)] * U_[at(i * V + j)]; });
        s = rounded(stored ? contract_.state : Format::fp32, push_.state, s);
      }
  }

  /// W = T beta kd and U = T beta V - W S.
  void erase(std::int64_t n, const Matrix& S) {
    keys_.assign(at(n * K), 0.0), values_.assign(at(n * V), 0.0), W_.assign(at(n * K), 0.0);
    const auto times = [&](const Matrix& right, std::int64_t i, std::int64_t c, std::int64_t width) {
      return sum(0, i + 1, [&](std::int64_t m) { return T_[at(i * n + m)] * right[at(m * width + c)]; });
    };
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t c = 0; c < K; ++c) keys_[at(i * K + c)] = operand(beta(i) * kd_[at(i * K + c)]);
      for (std::int64_t j = 0; j < V; ++j) values_[at(i * V + j)] = operand(beta(i) * head_.v[at((first_ + i) * V + j)]);
    }
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t c = 0; c < K; ++c) W_[at(i * K + c)] = operand(times(keys_, i, c, K));
      for (std::int64_t j = 0; j < V; ++j)
        U_[at(i * V + j)] = operand(operand(times(values_, i, j, V)) -
                                    sum(0, K, [&](std::int64_t c) { return W_[at(i * K + c)] * operand(S[at(c * V + j)]); }));
    }
  }

  void reverse(const Problem& problem, std::int64_t first, const Matrix& S, Matrix& dS, Gradients& out) {
    const std::int64_t n = n_;
    const Matrix read = as_read(dS);
    const auto d_o = [&](std::int64_t i, std::int64_t j) { return operand(problem.d_o[at((first + i) * V + j)]); };
    const auto over_V = [&](auto&& term) { return sum(0, V, term); };
    Matrix dU(at(n * V)), dZ(dU), W(dU), P(at(n * n)), Q(P), dL(P), row_q(at(n * K)), row_k(row_q), column(row_q), end(row_q);
    Matrix dW(row_q), d_key(row_q);
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < V; ++j)
        dU[at(i * V + j)] = operand(sum(i, n, [&](std::int64_t m) { return A_[at(m * n + i)] * d_o(m, j); }) +
                                    sum(0, K, [&](std::int64_t c) { return kr_[at(i * K + c)] * operand(read[at(c * V + j)]); }));
    for (std::int64_t i = n - 1; i >= 0; --i)
      for (std::int64_t j = 0; j < V; ++j) {
        double& z = dZ[at(i * V + j)];
        z = way_.substitutes ? substituted(i, j, dU, dZ, i + 1, n, [&](std::int64_t m) { return L_[at(m * n + i)]; })
                             : sum(i, n, [&](std::int64_t m) { return T_[at(m * n + i)] * dU[at(m * V + j)]; });
        W[at(i * V + j)] = operand(out.v[at((first + i) * V + j)] = single(beta(i) * z));
        if (!way_.by_inverse) z = operand(z);
        if (way_.twice) W[at(i * V + j)] = operand(beta(i) * z);
      }
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j <= i; ++j) {
        P[at(i * n + j)] = score(over_V([&](std::int64_t v) { return d_o(i, v) * U_[at(j * V + v)]; }));
        if (j == i) continue;
        dL[at(i * n + j)] = -over_V([&](std::int64_t v) { return operand(dZ[at(i * V + v)]) * U_[at(j * V + v)]; });
      }
    for (std::int64_t i = 0; i < n && way_.erases; ++i)
      for (std::int64_t c = 0; c < K; ++c)
        dW[at(i * K + c)] = operand(-over_V([&](std::int64_t v) { return dU[at(i * V + v)] * operand(S[at(c * V + v)]); }));
    for (std::int64_t i = 0; i < n && way_.erases; ++i)
      for (std::int64_t c = 0; c < K; ++c)
        d_key[at(i * K + c)] = operand(sum(i, n, [&](std::int64_t m) { return T_[at(m * n + i)] * dW[at(m * K + c)]; }));
    if (way_.by_inverse) {
      Matrix dT(P), M(P);
      for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j <= i; ++j)
          dT[at(i * n + j)] = operand(way_.erases ? sum(0, V + K,
                                                        [&](std::int64_t v) {
                                                          return v < V ? dU[at(i * V + v)] * values_[at(j * V + v)]
                                                                       : dW[at(i * K + v - V)] * keys_[at(j * K + v - V)];
                                                        })
                                                  : over_V([&](std::int64_t v) { return dU[at(i * V + v)] * Z_[at(j * V + v)]; }));
      for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t b = 0; b <= i; ++b)
          M[at(i * n + b)] = operand(way_.right_first ? sum(0, b + 1, [&](std::int64_t m) { return dT[at(i * n + m)] * T_[at(b * n + m)]; })
                                                      : sum(i, n, [&](std::int64_t a) { return T_[at(a * n + i)] * dT[at(a * n + b)]; }));
      for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j < i; ++j)
          dL[at(i * n + j)] = -(way_.right_first ? sum(i, n, [&](std::int64_t a) { return T_[at(a * n + i)] * M[at(a * n + j)]; })
                                                 : sum(0, j + 1, [&](std::int64_t b) { return M[at(i * n + b)] * T_[at(j * n + b)]; }));
    }
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < i; ++j)
        Q[at(i * n + j)] =
            score(way_.twice ? -over_V([&](std::int64_t v) { return W[at(i * V + v)] * U_[at(j * V + v)]; }) : beta(i) * dL[at(i * n + j)]);
    for (std::int64_t i = 0; i < n; ++i) {
      double& d = out.beta[at(first + i)];
      if (way_.erases)
        d = over_V([&](std::int64_t v) { return dZ[at(i * V + v)] * head_.v[at((first + i) * V + v)]; }) +
            sum(0, K, [&](std::int64_t c) { return d_key[at(i * K + c)] * kd_[at(i * K + c)]; }) +
            sum(0, i, [&](std::int64_t m) { return dL[at(i * n + m)] * Akk_[at(i * n + m)]; });
      else if (way_.by_inverse)
        d = over_V([&](std::int64_t v) { return dZ[at(i * V + v)] * R_[at(i * V + v)]; }) +
            sum(0, i, [&](std::int64_t m) { return operand(dL[at(i * n + m)]) * operand(Akk_[at(i * n + m)]); });
      else
        d = over_V([&](std::int64_t v) {
          return dZ[at(i * V + v)] *
                 (R_[at(i * V + v)] - sum(0, i, [&](std::int64_t m) { return Akk_[at(i * n + m)] * U_[at(m * V + v)]; }));
        });
    }
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t c = 0; c < K; ++c) {
        const double in = exponential(G_[at(i * K + c)]), rest = exponential(G_[at((n - 1) * K + c)] - G_[at(i * K + c)]);
        row_q[at(i * K + c)] = single(in * over_V([&](std::int64_t v) { return d_o(i, v) * operand(S[at(c * V + v)]); }));
        row_k[at(i * K + c)] = -single(in * over_V([&](std::int64_t v) { return W[at(i * V + v)] * operand(S[at(c * V + v)]); }));
        if (way_.erases) row_k[at(i * K + c)] = single(single(beta(i) * in) * d_key[at(i * K + c)]);
        end[at(i * K + c)] = single(rest * over_V([&](std::int64_t v) { return U_[at(i * V + v)] * operand(read[at(c * V + v)]); }));
      }
    column = end;
    for (std::int64_t c = 0; c < K; ++c) {
      for (std::int64_t i = 0; i < n; ++i) {
        row_q[at(i * K + c)] +=
            sum(0, i, [&](std::int64_t j) { return P[at(i * n + j)] * split(i, j, c).first * score(key(j, c) * split(i, j, c).second); });
        row_k[at(i * K + c)] +=
            sum(0, i, [&](std::int64_t j) { return Q[at(i * n + j)] * split(i, j, c).first * score(key(j, c) * split(i, j, c).second); });
        column[at(i * K + c)] += sum(i + 1, n, [&](std::int64_t m) {
          const auto [row, down] = split(m, i, c);
          return down * (P[at(m * n + i)] * score(query(m, c) * row) + Q[at(m * n + i)] * score(key(m, c) * row));
        });
      }
      double g = exponential(G_[at((n - 1) * K + c)]) * over_V([&](std::int64_t v) { return S[at(c * V + v)] * read[at(c * V + v)]; });
      for (std::int64_t i = 0; i < n; ++i) g = single(g + single(key(i, c) * end[at(i * K + c)]));
      for (std::int64_t i = n - 1; i >= 0; --i) {
        const std::size_t entry = at((first + i) * K + c);
        g = single(g + single(query(i, c) * row_q[at(i * K + c)]) + single(key(i, c) * (row_k[at(i * K + c)] - column[at(i * K + c)])));
        out.g[entry] = g;
        out.q[entry] = single(head_.scale * (row_q[at(i * K + c)] + P[at(i * n + i)] * key(i, c)));
        out.k[entry] = single(row_k[at(i * K + c)] + column[at(i * K + c)] + P[at(i * n + i)] * query(i, c));
      }
    }
    for (std::int64_t c = 0; c < K; ++c)
      for (std::int64_t j = 0; j < V; ++j) {
        double& d = dS[at(c * V + j)];
        d = exponential(G_[at((n - 1) * K + c)]) * d + sum(0, n, [&](std::int64_t i) { return qd_[at(i * K + c)] * d_o(i, j); }) -
            sum(0, n, [&](std::int64_t i) {
              return way_.erases ? W_[at(i * K + c)] * dU[at(i * V + j)] : kd_[at(i * K + c)] * W[at(i * V + j)];
            });
        d = rounded(first % contract_.chunk == 0 ? contract_.state : Format::fp32, push_.adjoint, d);
      }
  }

  std::int64_t first_ = 0, n_ = 0;
  Matrix L_, G_, kd_, qd_, kr_, A_, Akk_, T_, R_, U_, Z_, keys_, values_, W_, next_;
};

} // namespace kdacheck::testing
