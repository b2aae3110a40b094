#pragma once
// The recurrence and its adjoint in fp64, written for reading: what the CPU kernels are compared with in their tests.

#include "../../../reference/problem.hpp"

#include <array>
#include <cmath>
#include <vector>

namespace kdacheck::tests {

using Numbers = std::vector<double>;

struct Exact {
  Numbers o, final_state;
  std::array<Numbers, all_inputs.size()> gradient;
  Numbers& operator[](Input input) { return gradient[static_cast<std::size_t>(input)]; }
  const Numbers& operator[](Input input) const { return gradient[static_cast<std::size_t>(input)]; }
};

inline double softplus(double x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }
inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

/// Outputs and gradients of <d_o, o> + <d_final_state, S_final>, all states kept.
inline Exact exact(const Problem& p) {
  const auto [B, T, H, HV, K, V] = p.shape;
  const std::int64_t N = sequence_count(p);
  const bool dplr = p.options.rule == Rule::dplr;
  const auto size = [&](Input input) {
    const auto shape = shape_of(input, p.shape, N);
    return static_cast<std::size_t>(shape[0] * shape[1] * shape[2] * shape[3]);
  };
  Exact result;
  result.o.assign(static_cast<std::size_t>(B * T * HV * V), 0);
  result.final_state.assign(size(Input::initial_state), 0);
  for (Input input : all_inputs) result[input].assign(size(input), 0);

  for (const Sequence& sequence : sequences(p))
    for (std::int64_t h = 0; h < HV; ++h) {
      const std::int64_t shared = h / (HV / H), L = sequence.length;
      const auto at = [&](std::int64_t t, std::int64_t heads, std::int64_t head, std::int64_t width) {
        return static_cast<std::size_t>(((sequence.first + t) * heads + head) * width);
      };
      const auto un = [](std::int64_t x) { return static_cast<std::size_t>(x); };
      const double rate = p.A_log.empty() ? 0 : std::exp(double(p.A_log[un(h)]));
      const auto g_of = [&](std::int64_t t, std::int64_t c) -> double {
        if (p.options.gate == GateForm::absent) return 0;
        const double x = p.g[at(t, HV, h, K) + un(c)], shifted = x + (p.dt_bias.empty() ? 0 : p.dt_bias[un(h * K + c)]);
        switch (p.options.gate) {
        case GateForm::softplus: return -rate * softplus(shifted);
        case GateForm::bounded: return p.options.lower_bound * sigmoid(rate * shifted);
        case GateForm::sigmoid: return -softplus(-x);
        default: return x;
        }
      };
      const auto beta_at = [&](std::int64_t t) {
        const double x = p.beta[at(t, HV, h, 1)];
        return p.options.beta == BetaForm::value ? x : (p.options.beta == BetaForm::sigmoid ? 1 : 2) * sigmoid(x);
      };
      const auto unit = [&](const std::vector<float>& from, std::int64_t t, double& inverse) {
        Numbers row(un(K));
        double square = 0;
        for (std::int64_t c = 0; c < K; ++c) row[un(c)] = from[at(t, H, shared, K) + un(c)], square += row[un(c)] * row[un(c)];
        inverse = p.options.l2norm ? 1 / std::sqrt(square + 1e-6) : 1;
        for (double& x : row) x *= inverse;
        return row;
      };
      // Row-major [K,V] state before each token, and after the last.
      std::vector<Numbers> states(un(L + 1), Numbers(un(K * V), 0));
      const std::size_t state_at = un((sequence.index * HV + h) * K * V);
      if (!p.initial_state.empty())
        for (std::int64_t i = 0; i < K * V; ++i) states[0][un(i)] = p.initial_state[state_at + un(i)];
      // S_t = D S_{t-1} + e w^T + k' v^T with w = -S_{t-1}^T f: KDA has e = beta k, f = alpha k, k' = beta k.
      struct Token {
        Numbers q, k, alpha, e, f, key, w;
        double q_inverse, k_inverse, beta;
      };
      std::vector<Token> tokens(un(L));
      for (std::int64_t t = 0; t < L; ++t) {
        Token& token = tokens[un(t)];
        token.q = unit(p.q, t, token.q_inverse);
        token.k = unit(p.k, t, token.k_inverse);
        token.beta = dplr ? 0 : beta_at(t);
        token.alpha.resize(un(K)), token.e.resize(un(K)), token.f.resize(un(K)), token.key.resize(un(K)), token.w.assign(un(V), 0);
        for (std::int64_t c = 0; c < K; ++c) {
          const std::size_t i = un(c);
          token.alpha[i] = std::exp(g_of(t, c));
          token.e[i] = dplr ? p.a[at(t, HV, h, K) + i] : token.beta * token.k[i];
          token.f[i] = dplr ? p.b[at(t, HV, h, K) + i] : token.alpha[i] * token.k[i];
          token.key[i] = dplr ? token.k[i] : token.beta * token.k[i];
        }
        const Numbers& S = states[un(t)];
        Numbers& next = states[un(t + 1)];
        for (std::int64_t c = 0; c < K; ++c)
          for (std::int64_t j = 0; j < V; ++j) token.w[un(j)] -= token.f[un(c)] * S[un(c * V + j)];
        for (std::int64_t c = 0; c < K; ++c)
          for (std::int64_t j = 0; j < V; ++j) {
            const double v = p.v[at(t, HV, h, V) + un(j)];
            const double x = token.alpha[un(c)] * S[un(c * V + j)] + token.e[un(c)] * token.w[un(j)] + token.key[un(c)] * v;
            next[un(c * V + j)] = x;
            result.o[at(t, HV, h, V) + un(j)] += p.options.scale * token.q[un(c)] * x;
          }
      }
      for (std::int64_t i = 0; i < K * V; ++i) result.final_state[state_at + un(i)] = states[un(L)][un(i)];

      Numbers dS(un(K * V), 0);
      if (!p.d_final_state.empty())
        for (std::int64_t i = 0; i < K * V; ++i) dS[un(i)] = p.d_final_state[state_at + un(i)];
      for (std::int64_t t = L - 1; t >= 0; --t) {
        const Token& token = tokens[un(t)];
        const Numbers &S = states[un(t)], &next = states[un(t + 1)];
        Numbers dq(un(K), 0), dk(un(K), 0), de(un(K), 0), df(un(K), 0), dkey(un(K), 0), dalpha(un(K), 0), dw(un(V), 0), dv(un(V), 0);
        for (std::int64_t c = 0; c < K; ++c)
          for (std::int64_t j = 0; j < V; ++j) {
            const std::size_t i = un(c * V + j);
            const double d_o = p.d_o.empty() ? 0 : p.d_o[at(t, HV, h, V) + un(j)], v = p.v[at(t, HV, h, V) + un(j)];
            dq[un(c)] += p.options.scale * d_o * next[i];
            dS[i] += p.options.scale * token.q[un(c)] * d_o;
            dalpha[un(c)] += dS[i] * S[i];
            de[un(c)] += dS[i] * token.w[un(j)];
            dw[un(j)] += dS[i] * token.e[un(c)];
            dkey[un(c)] += dS[i] * v;
            dv[un(j)] += dS[i] * token.key[un(c)];
          }
        for (std::int64_t c = 0; c < K; ++c)
          for (std::int64_t j = 0; j < V; ++j) {
            const std::size_t i = un(c * V + j);
            df[un(c)] -= dw[un(j)] * S[i];
            dS[i] = token.alpha[un(c)] * dS[i] - token.f[un(c)] * dw[un(j)];
          }
        double dbeta = 0;
        for (std::int64_t c = 0; c < K; ++c) {
          const std::size_t i = un(c), row = at(t, HV, h, K) + i;
          if (dplr) {
            result[Input::a][row] = de[i];
            result[Input::b][row] = df[i];
            dk[i] = dkey[i];
          } else {
            dbeta += (de[i] + dkey[i]) * token.k[i];
            dk[i] = token.beta * (de[i] + dkey[i]) + token.alpha[i] * df[i];
            dalpha[i] += token.k[i] * df[i];
          }
          if (p.options.gate == GateForm::absent) continue;
          const double dg = dalpha[i] * token.alpha[i], x = p.g[row];
          const double shifted = x + (p.dt_bias.empty() ? 0 : p.dt_bias[un(h * K + c)]), s = sigmoid(rate * shifted);
          double slope = 1, along_rate = 0;
          if (p.options.gate == GateForm::softplus) slope = -rate * sigmoid(shifted), along_rate = g_of(t, c);
          if (p.options.gate == GateForm::bounded)
            slope = p.options.lower_bound * s * (1 - s) * rate, along_rate = p.options.lower_bound * s * (1 - s) * rate * shifted;
          if (p.options.gate == GateForm::sigmoid) slope = sigmoid(-x);
          result[Input::g][row] = dg * slope;
          result[Input::A_log][un(h)] += dg * along_rate;
          result[Input::dt_bias][un(h * K + c)] += dg * slope;
        }
        if (!dplr) {
          const double x = p.beta[at(t, HV, h, 1)], s = sigmoid(x);
          const double slope = p.options.beta == BetaForm::value ? 1 : (p.options.beta == BetaForm::sigmoid ? 1 : 2) * s * (1 - s);
          result[Input::beta][at(t, HV, h, 1)] = dbeta * slope;
        }
        for (std::int64_t j = 0; j < V; ++j) result[Input::v][at(t, HV, h, V) + un(j)] = dv[un(j)];
        const auto back = [&](Input input, const Numbers& rows, const Numbers& d, double inverse) {
          double along = 0;
          for (std::int64_t c = 0; c < K; ++c) along += rows[un(c)] * d[un(c)];
          for (std::int64_t c = 0; c < K; ++c)
            result[input][at(t, H, shared, K) + un(c)] += p.options.l2norm ? inverse * (d[un(c)] - along * rows[un(c)]) : d[un(c)];
        };
        back(Input::q, token.q, dq, token.q_inverse);
        back(Input::k, token.k, dk, token.k_inverse);
      }
      for (std::int64_t i = 0; i < K * V; ++i) result[Input::initial_state][state_at + un(i)] = dS[un(i)];
    }
  return result;
}

} // namespace kdacheck::tests
