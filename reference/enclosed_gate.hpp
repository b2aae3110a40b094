#pragma once
// Effective decay and strength of a token from what the kernel is given, with radii.

#include "certified_log.hpp"
#include "problem.hpp"

namespace kdacheck::certified {

/// sigmoid(x) and 1 - sigmoid(x), without cancellation at either end.
template <class N> struct SigmoidPair {
  Ball<N> value, complement;
};

template <class N> inline SigmoidPair<N> sigmoid(const Ball<N>& x) {
  const Ball<N> one = exact_ball<N>(broadcast<Bound<N>>(1.0));
  const auto negative = leading(x.mid) < 0;
  const Ball<N> z = exponential(choose(negative, x, -x));
  const Ball<N> large = one / (one + z);
  const Ball<N> small = z * large;
  return {choose(negative, small, large), choose(negative, large, small)};
}

/// log(1 + e^x) = max(x, 0) + log(1 + e^-|x|)
template <class N> inline Ball<N> softplus(const Ball<N>& x) {
  const auto negative = leading(x.mid) < 0;
  const Ball<N> zero = exact_ball<N>(Bound<N>{});
  return choose(negative, zero, x) + log_one_plus(exponential(choose(negative, x, -x)));
}

/// A decay and the derivatives of its logarithm; a tensor that the gate lacks has derivative zero.
template <class N> struct EnclosedGate {
  Ball<N> alpha;    ///< the decay itself
  Ball<N> by_input; ///< d ln alpha / d x, and d ln alpha / d dt_bias
  Ball<N> by_A_log; ///< d ln alpha / d A_log
};

inline constexpr double rate_limit = 600; ///< A_log beyond which exp(A_log) times an fp32 number could overflow

/// exp(A_log). Beyond the limit the ball holds e^600, and `saturated` says that the truth is that or more.
template <class N> struct GateRate {
  Ball<N> ball = exact_ball<N>(broadcast<Bound<N>>(1.0));
  bool saturated = false;
};

template <class N> inline GateRate<N> gate_rate(float A_log) {
  if (std::isinf(A_log) && A_log < 0) return {exact_ball<N>(Bound<N>{}), false};
  const bool saturated = A_log > rate_limit;
  return {exponential(exact_ball<N>(broadcast<Bound<N>>(saturated ? rate_limit : static_cast<double>(A_log)))), saturated};
}

/// ln alpha = -rate softplus(y).
/// Where alpha is flushed, the adjoint has put flush_radius for alpha into the radius of d ln alpha; as softplus >= sigmoid,
/// |d ln alpha / d x| <= |ln alpha|, and |ln alpha| e^-|ln alpha| < flush_radius: a derivative "within 1 of 0" encloses.
template <class N> inline EnclosedGate<N> softplus_gate(const Ball<N>& y, const GateRate<N>& rate) {
  const Ball<N> zero = exact_ball<N>(Bound<N>{});
  Ball<N> log_alpha = -(rate.ball * softplus(y));
  Ball<N> slope = -(rate.ball * sigmoid(y).value);
  Ball<N> alpha = exponential(log_alpha);
  const auto flushed = leading(log_alpha.mid) + log_alpha.radius < flush_threshold;
  if (rate.saturated) {
    const Bound<N> unknown = broadcast<Bound<N>>(std::numeric_limits<double>::infinity());
    log_alpha.radius = slope.radius = unknown;
    alpha = choose(flushed, alpha, Ball<N>{zero.mid, broadcast<Bound<N>>(1.0)});
  }
  const Ball<N> within_one{zero.mid, broadcast<Bound<N>>(1.0)};
  log_alpha = choose(flushed, within_one, log_alpha);
  return {alpha, choose(flushed, within_one, slope), log_alpha};
}

/// ln alpha = lower_bound sigmoid(rate y). Where the sigmoid has flushed, |argument| > 650 and |y| >= 2^-149, so that
/// rate e^-|argument| <= 2^149 |argument| e^-|argument| < 2^-779: times |lower_bound| < 2^128 both derivatives are below it.
template <class N> inline EnclosedGate<N> bounded_gate(const Ball<N>& y, const GateRate<N>& rate, float lower_bound) {
  const Ball<N> argument = rate.ball * y;
  const SigmoidPair<N> gate = sigmoid(argument);
  const Ball<N> log_alpha = exact_ball<N>(broadcast<Bound<N>>(lower_bound)) * gate.value;
  const Ball<N> slope = log_alpha * gate.complement;
  Ball<N> by_input = slope * rate.ball;
  if (rate.saturated) by_input.radius = broadcast<Bound<N>>(std::numeric_limits<double>::infinity());
  const auto flushed = size(argument) - argument.radius > -flush_threshold;
  const Ball<N> nothing{exact_ball<N>(Bound<N>{}).mid, broadcast<Bound<N>>(0x1p-640)};
  return {exponential(log_alpha), choose(flushed, nothing, by_input), choose(flushed, nothing, slope * argument)};
}

/// Decay of one channel (or of a pack of channels): x is the tensor g, bias dt_bias (0 where absent), rate = exp(A_log).
template <class N>
inline EnclosedGate<N> enclosed_gate(const Options& options, const Bound<N>& x, const Bound<N>& bias, const GateRate<N>& rate) {
  const Ball<N> one = exact_ball<N>(broadcast<Bound<N>>(1.0));
  const Ball<N> zero = exact_ball<N>(Bound<N>{});
  const Ball<N> input = exact_ball<N>(x);
  switch (options.gate) {
  case GateForm::log_decay: return {exponential(input), one, zero};
  case GateForm::softplus: return softplus_gate(input + exact_ball<N>(bias), rate);
  case GateForm::bounded: return bounded_gate(input + exact_ball<N>(bias), rate, options.lower_bound);
  case GateForm::sigmoid: {
    const SigmoidPair<N> gate = sigmoid(input);
    return {gate.value, gate.complement, zero};
  }
  default: return {one, zero, zero};
  }
}

/// beta and d beta / d x.
template <class N> struct EnclosedStrength {
  Ball<N> beta, slope;
};

template <class N> inline EnclosedStrength<N> enclosed_strength(const Options& options, const Bound<N>& x) {
  const Ball<N> one = exact_ball<N>(broadcast<Bound<N>>(1.0));
  if (options.beta == BetaForm::value) return {exact_ball<N>(x), one};
  const SigmoidPair<N> gate = sigmoid(exact_ball<N>(x));
  const Ball<N> factor = exact_ball<N>(broadcast<Bound<N>>(options.beta == BetaForm::sigmoid ? 1.0 : 2.0));
  return {factor * gate.value, factor * gate.value * gate.complement};
}

} // namespace kdacheck::certified
