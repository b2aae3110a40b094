#pragma once
// The reverse mode of the token recurrence in fp64, erring as much as a contract allows, in the direction that is asked for: what the
// proved bound of gradients that are formed token by token must hold.

#include "../../reference/problem.hpp"
#include "../budget_head.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace kdacheck::testing {

inline std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// Direction in which each kind of step errs: -1, 0 (exact) or 1.
struct Push {
  double operand = 0, exponential = 0, accumulate = 0, state = 0, adjoint = 0;
  static constexpr std::array members{&Push::operand, &Push::exponential, &Push::accumulate, &Push::state, &Push::adjoint};
};

using Matrix = std::vector<double>;

/// Gradients of one head, token by token in fp64, erring as much as a contract allows: q k v g beta a b and d initial_state.
struct Gradients {
  Matrix q, k, v, g, beta, a, b, state;
};

class PushedAdjoint {
public:
  PushedAdjoint(const Contract& contract, const Head& head, const Push& push) : contract_(contract), head_(head), push_(push) {}

  Gradients run(const Problem& problem) {
    const std::int64_t T = head_.tokens, K = head_.K, V = head_.V;
    std::vector<Matrix> S{head_.state};
    for (std::int64_t t = 0; t < T; ++t) S.push_back(advanced(t, S.back()));
    Matrix L(problem.d_final_state.begin(), problem.d_final_state.end());
    Gradients out;
    for (auto* rows : {&out.q, &out.k, &out.g, &out.a, &out.b}) rows->assign(at(T * K), 0.0);
    out.v.assign(at(T * V), 0.0), out.beta.assign(at(T), 0.0);
    Matrix sums(at(K)); // of dg, where it is a running sum
    for (std::int64_t c = 0; c < K; ++c)
      sums[at(c)] = sum(V, [&](std::int64_t j) { return operand(S.back()[at(c * V + j)]) * operand(L[at(c * V + j)]); });
    for (std::int64_t t = T - 1; t >= 0; --t) {
      Matrix d_o(problem.d_o.begin() + t * V, problem.d_o.begin() + (t + 1) * V);
      const auto k = [&](std::int64_t c) { return operand(head_.k[at(t * K + c)]); };
      const auto over_V = [&](auto&& term) { return sum(V, term); };
      for (std::int64_t c = 0; c < K; ++c) {
        const std::size_t entry = at(t * K + c);
        out.q[entry] = head_.scale * over_V([&](std::int64_t j) { return operand(S[at(t + 1)][at(c * V + j)]) * operand(d_o[at(j)]); });
        for (std::int64_t j = 0; j < V; ++j)
          L[at(c * V + j)] =
              kept(L[at(c * V + j)] + operand(head_.scale * head_.q[entry]) * operand(d_o[at(j)]), Format::fp32, push_.adjoint);
      }
      Matrix alpha(at(K)), X(S[at(t)]), w(at(V)), m(at(V)), held(at(V));
      for (std::int64_t c = 0; c < K; ++c) {
        alpha[at(c)] = decay(t, c);
        for (std::int64_t j = 0; j < V; ++j) X[at(c * V + j)] *= alpha[at(c)];
      }
      const auto reads = [&](auto&& row, const Matrix& matrix, std::int64_t j) {
        return sum(K, [&](std::int64_t c) { return row(c) * operand(matrix[at(c * V + j)]); });
      };
      const double beta = head_.dplr ? 1 : head_.beta[at(t)];
      for (std::int64_t j = 0; j < V; ++j) {
        if (head_.dplr) {
          w[at(j)] = -reads([&](std::int64_t c) { return operand(head_.b[at(t * K + c)]); }, S[at(t)], j);
          m[at(j)] = reads([&](std::int64_t c) { return operand(head_.a[at(t * K + c)]); }, L, j);
          out.v[at(t * V + j)] = reads(k, L, j);
        } else {
          w[at(j)] = head_.v[at(t * V + j)] - reads(k, X, j);
          m[at(j)] = reads(k, L, j);
          out.v[at(t * V + j)] = operand(beta) * operand(m[at(j)]);
        }
      }
      out.beta[at(t)] = over_V([&](std::int64_t j) { return operand(m[at(j)]) * operand(w[at(j)]); });
      for (std::int64_t c = 0; c < K; ++c) {
        const std::size_t entry = at(t * K + c);
        const auto row = [&](const Matrix& matrix, const Matrix& by) {
          return over_V([&](std::int64_t j) { return operand(matrix[at(c * V + j)]) * operand(by[at(j)]); });
        };
        if (head_.dplr) {
          Matrix v(head_.v.begin() + t * V, head_.v.begin() + (t + 1) * V);
          out.k[entry] = row(L, v), out.a[entry] = row(L, w), out.b[entry] = -row(S[at(t)], m);
          sums[at(c)] += head_.q[entry] * out.q[entry] - head_.a[entry] * out.a[entry] - head_.k[entry] * out.k[entry];
        } else {
          out.k[entry] = beta * (row(L, w) - row(X, m));
          sums[at(c)] += head_.q[entry] * out.q[entry] - head_.k[entry] * beta * (row(L, w) + row(X, m));
          for (std::int64_t j = 0; j < V; ++j)
            L[at(c * V + j)] = kept(L[at(c * V + j)] - operand(beta * head_.k[entry]) * operand(m[at(j)]), Format::fp32, push_.adjoint);
        }
        out.g[entry] = over_V([&](std::int64_t j) { return operand(X[at(c * V + j)]) * operand(L[at(c * V + j)]); });
        if (contract_.decay_gradient == DecayGradient::sums) {
          out.g[entry] = sums[at(c)];
          if (head_.dplr) sums[at(c)] += head_.b[entry] * out.b[entry];
        }
        for (std::int64_t j = 0; j < V; ++j) {
          double& lambda = L[at(c * V + j)];
          lambda = alpha[at(c)] * lambda - (head_.dplr ? operand(head_.b[entry]) * operand(m[at(j)]) : 0);
          lambda = kept(lambda, contract_.state, push_.adjoint);
        }
      }
    }
    out.state = L;
    return out;
  }

private:
  double operand(double x) const { return kept(x, contract_.operands, push_.operand); }
  double kept(double x, Format format, double push) const {
    if (format != Format::fp16) return x * (1 + push * unit_roundoff(format));
    const double near = x + push * std::max(0x1p-11 * std::abs(x), std::abs(x) < 0x1p-14 ? 0x1p-25 : 0.0); // fp16's subnormals
    return std::abs(near) > 65504 ? std::copysign(HUGE_VAL, near) : near;
  }
  double decay(std::int64_t t, std::int64_t c) const {
    return std::exp(head_.g[at(t * head_.K + c)]) * (1 + push_.exponential * 2 * contract_.exp_ulp * 0x1p-24);
  }
  template <class Term> double sum(std::int64_t n, Term&& term) const {
    double total = 0, size = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      const double x = term(i);
      total += x, size += std::abs(x);
    }
    return total + push_.accumulate * static_cast<double>(n) * unit_roundoff(contract_.accumulate) * size;
  }

  Matrix advanced(std::int64_t t, Matrix S) const {
    const std::int64_t K = head_.K, V = head_.V;
    for (std::int64_t j = 0; j < V; ++j) {
      const double v = head_.v[at(t * V + j)];
      if (head_.dplr) {
        const double read = sum(K, [&](std::int64_t c) { return operand(head_.b[at(t * K + c)]) * operand(S[at(c * V + j)]); });
        for (std::int64_t c = 0; c < K; ++c) {
          double& s = S[at(c * V + j)];
          const std::size_t entry = at(t * K + c);
          s = kept(decay(t, c) * s - operand(head_.a[entry]) * operand(read) + operand(head_.k[entry]) * operand(v), contract_.state,
                   push_.state);
        }
        continue;
      }
      for (std::int64_t c = 0; c < K; ++c) S[at(c * V + j)] *= decay(t, c);
      const double read = sum(K, [&](std::int64_t c) { return operand(head_.k[at(t * K + c)]) * operand(S[at(c * V + j)]); });
      for (std::int64_t c = 0; c < K; ++c) {
        double& s = S[at(c * V + j)];
        s = kept(s + operand(head_.k[at(t * K + c)]) * operand(head_.beta[at(t)] * (v - read)), contract_.state, push_.state);
      }
    }
    return S;
  }

  const Contract& contract_;
  const Head& head_;
  Push push_;
};

} // namespace kdacheck::testing
