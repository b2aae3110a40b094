#pragma once
// Effective decay and strength of a token from what the kernel is given, with radii.

#include "ball.hpp"
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

/// ln alpha and its derivatives; a tensor that the gate lacks has derivative zero.
template <class N> struct EnclosedGate {
  Ball<N> alpha;     ///< the decay itself
  Ball<N> log_alpha; ///< which is also its own derivative with respect to A_log for the softplus gate
  Ball<N> by_input;  ///< d ln alpha / d x, and d ln alpha / d dt_bias
  Ball<N> by_A_log;  ///< d ln alpha / d A_log
};

/// Decay of one channel (or of a pack of channels): x is the tensor g, bias dt_bias (0 where absent), rate = exp(A_log).
template <class N>
inline EnclosedGate<N> enclosed_gate(const Options& options, const Bound<N>& x, const Bound<N>& bias, const Ball<N>& rate) {
  const Ball<N> one = exact_ball<N>(broadcast<Bound<N>>(1.0));
  const Ball<N> zero = exact_ball<N>(Bound<N>{});
  const Ball<N> input = exact_ball<N>(x);
  switch (options.gate) {
  case GateForm::log_decay: return {exponential(input), input, one, zero};
  case GateForm::softplus: {
    const Ball<N> shifted = input + exact_ball<N>(bias);
    const Ball<N> log_alpha = -(rate * softplus(shifted));
    return {exponential(log_alpha), log_alpha, -(rate * sigmoid(shifted).value), log_alpha};
  }
  case GateForm::bounded: {
    const Ball<N> argument = rate * (input + exact_ball<N>(bias));
    const SigmoidPair<N> gate = sigmoid(argument);
    const Ball<N> log_alpha = exact_ball<N>(broadcast<Bound<N>>(options.lower_bound)) * gate.value;
    const Ball<N> slope = log_alpha * gate.complement;
    return {exponential(log_alpha), log_alpha, slope * rate, slope * argument};
  }
  case GateForm::sigmoid: {
    const SigmoidPair<N> gate = sigmoid(input);
    return {gate.value, zero, gate.complement, zero};
  }
  default: return {one, zero, zero, zero};
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
