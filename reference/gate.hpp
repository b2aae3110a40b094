#pragma once
// Decay gates, beta maps and key normalisation with their derivatives, in any number type, without cancellation.
//
// exp, log, log1p and sqrt are found by argument-dependent lookup, or in std for the built-in types.

#include "problem.hpp"
#include "token.hpp"

#include <cmath>
#include <span>
#include <vector>

namespace kdacheck {

/// Added to the sum of squares by the in-kernel normalisation. Exactly this double in every arithmetic.
inline constexpr double l2norm_epsilon = 1e-6;

/// 1 / (1 + e^-x): relative error of a few roundings for every x, +-inf included.
template <Number N> N sigmoid(const N& x) {
  using std::exp;
  if (x < N(0.0)) {
    const N e = exp(x);
    return e / (N(1.0) + e);
  }
  return N(1.0) / (N(1.0) + exp(-x));
}

/// ln(1 + e^x): relative error of a few roundings for every x, +-inf included.
template <Number N> N softplus(const N& x) {
  using std::exp, std::log1p;
  if (N(0.0) < x) return x + log1p(exp(-x));
  return log1p(exp(x));
}

/// softplus'(x) / softplus(x) = sigmoid(x) / softplus(x): tends to 1 at -inf and to 1/x at +inf.
template <Number N> N softplus_log_derivative(const N& x) {
  using std::exp, std::log1p;
  if (N(0.0) < x) return sigmoid(x) / softplus(x);
  const N e = exp(x);
  return N(0.0) < e ? e / log1p(e) / (N(1.0) + e) : N(1.0);
}

/// Raw gate of one channel. A_log may be -inf (no decay under `softplus`) or so large that its exponential overflows.
template <Number N> struct Gate {
  GateForm form = GateForm::absent;
  N lower_bound{0.0};
  N x{0.0}, A_log{0.0}, dt_bias{0.0};
};

/// ln alpha and alpha of one channel.
template <Number N> struct Decay {
  N log_decay{0.0};
  N alpha{1.0};
};

namespace gate_detail {

/// e^A softplus(y). One factor may overflow or vanish where the product is an ordinary number (A = 800, y = -800): then
/// the logarithms are added instead, at the cost of |A| + |y| roundings; ln softplus(y) = y - e^y / 2 + O(e^2y).
template <Number N> N scaled_softplus(const N& A, const N& y) {
  using std::exp, std::log;
  const N limit(600.0);
  if (A < limit && -limit < y) return exp(A) * softplus(y);
  return exp(A + (y < -limit ? N(y - exp(y) / N(2.0)) : N(log(softplus(y)))));
}

/// e^A y, with e^inf 0 = 0.
template <Number N> N scaled(const N& A, const N& y) {
  using std::exp;
  if (y == N(0.0)) return N(0.0);
  return exp(A) * y;
}

} // namespace gate_detail

/// The decay of one channel. Source: Kimi Linear technical report, section 3.1; forms as in GateForm.
template <Number N> Decay<N> decay(const Gate<N>& gate) {
  using std::exp;
  switch (gate.form) {
  case GateForm::log_decay: return {gate.x, exp(gate.x)};
  case GateForm::softplus: {
    const N g = -gate_detail::scaled_softplus(gate.A_log, gate.x + gate.dt_bias);
    return {g, exp(g)};
  }
  case GateForm::bounded: {
    const N g = gate.lower_bound * sigmoid(gate_detail::scaled(gate.A_log, gate.x + gate.dt_bias));
    return {g, exp(g)};
  }
  case GateForm::sigmoid: return {-softplus(-gate.x), sigmoid(gate.x)};
  default: return {};
  }
}

/// Derivatives with respect to the raw gate; that of dt_bias equals that of x.
template <Number N> struct GateGradient {
  N x{0.0}, A_log{0.0};
};

/// Reverse mode of `decay`. The limits at A_log = -inf and +inf are taken: alpha = exp(-e^A s) vanishes faster than e^A
/// grows, so d ln alpha = 0 there gives exactly 0. (Only the bounded gate at x + dt_bias = 0 has a derivative that truly
/// grows like e^A.)
template <Number N> GateGradient<N> decay_reverse(const Gate<N>& gate, const Decay<N>& value, const N& d_log_decay) {
  using std::exp;
  if (d_log_decay == N(0.0)) return {};
  switch (gate.form) {
  case GateForm::log_decay: return {d_log_decay, N(0.0)};
  case GateForm::softplus: {
    // d g / d A = g and d g / d x = g softplus'/softplus: no factor that could overflow alone
    const N through_rate = d_log_decay * value.log_decay;
    return {through_rate * softplus_log_derivative(N(gate.x + gate.dt_bias)), through_rate};
  }
  case GateForm::bounded: {
    const N z = gate_detail::scaled(gate.A_log, gate.x + gate.dt_bias);
    const N slope = sigmoid(z) * sigmoid(N(-z));
    if (slope == N(0.0)) return {};
    const N d_z = d_log_decay * gate.lower_bound * slope;
    return {d_z * exp(gate.A_log), d_z * z};
  }
  case GateForm::sigmoid: return {d_log_decay * sigmoid(N(-gate.x)), N(0.0)};
  default: return {};
  }
}

/// beta from its raw value.
template <Number N> N beta_of(BetaForm form, const N& x) {
  switch (form) {
  case BetaForm::value: return x;
  case BetaForm::sigmoid: return sigmoid(x);
  default: return N(2.0) * sigmoid(x);
  }
}

/// Reverse mode of `beta_of`: d loss / d x.
template <Number N> N beta_reverse(BetaForm form, const N& x, const N& d_beta) {
  if (form == BetaForm::value) return d_beta;
  const N slope = sigmoid(x) * sigmoid(N(-x));
  return form == BetaForm::sigmoid ? N(d_beta * slope) : N(N(2.0) * d_beta * slope);
}

/// 1 / sqrt(sum x^2 + 1e-6)
template <Number N> N inverse_norm(std::span<const N> x) {
  using std::sqrt;
  N sum(l2norm_epsilon);
  for (const N& element : x) sum = sum + element * element;
  return N(1.0) / sqrt(sum);
}

/// x / sqrt(sum x^2 + 1e-6)
template <Number N> std::vector<N> normalised(std::span<const N> x) {
  const N factor = inverse_norm(x);
  std::vector<N> y;
  y.reserve(x.size());
  for (const N& element : x) y.push_back(factor * element);
  return y;
}

/// Reverse mode of `normalised`: dx = r (dy - y (y . dy)) with r = inverse_norm(x), y = r x.
template <Number N> std::vector<N> normalised_reverse(std::span<const N> x, std::span<const N> d_y) {
  const N factor = inverse_norm(x);
  N along(0.0);
  for (std::size_t i = 0; i < x.size(); ++i) along = along + factor * x[i] * d_y[i];
  std::vector<N> d_x;
  d_x.reserve(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) d_x.push_back(factor * (d_y[i] - factor * x[i] * along));
  return d_x;
}

} // namespace kdacheck
