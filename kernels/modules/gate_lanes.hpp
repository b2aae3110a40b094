#pragma once
// The gate forms on a register of logits at a time, without cancellation at either end.

#include "../../reference/problem.hpp"
#include "../cpu/lanes.hpp"

#include <limits>

namespace kdacheck::modules {

using cpu::Lanes;

/// ln(1 + e) for e in [0,1], within 4 units in the last place: 2 artanh(e / (2 + e)), whose series in s^2 <= 1/9 leaves
/// 9^-8 / 17 < 2^-29 behind eight terms.
inline Lanes log1p_of(Lanes e) {
  const Lanes s = e / (cpu::broadcast(2.0f) + e), square = s * s;
  Lanes p = cpu::broadcast(1.0f / 15);
  for (float term : {1.0f / 13, 1.0f / 11, 1.0f / 9, 1.0f / 7, 1.0f / 5, 1.0f / 3, 1.0f})
    p = cpu::multiply_add(p, square, cpu::broadcast(term));
  return (s + s) * p;
}

inline Lanes at_least(Lanes x, float least) { return x < cpu::broadcast(least) ? cpu::broadcast(least) : x; }
inline Lanes at_most(Lanes x, float most) { return x > cpu::broadcast(most) ? cpu::broadcast(most) : x; }
inline Lanes within_fp32(Lanes x) {
  constexpr float most = std::numeric_limits<float>::max();
  return at_most(at_least(x, -most), most);
}

/// sigmoid(x), sigmoid(-x) and softplus(x) from one exponential of -|x|.
struct Logistic {
  Lanes rising, falling, small, x;

  explicit Logistic(Lanes argument) : x(argument) {
    small = cpu::exp_of(x < Lanes{} ? x : -x);
    const Lanes large_side = cpu::broadcast(1.0f) / (cpu::broadcast(1.0f) + small), small_side = small * large_side;
    rising = x < Lanes{} ? small_side : large_side;
    falling = x < Lanes{} ? large_side : small_side;
  }
  Lanes softplus() const { return at_least(x, 0.0f) + log1p_of(small); }
  Lanes softplus_of_negative() const { return at_least(-x, 0.0f) + log1p_of(small); }
};

/// Parameters of as many channels.
struct GateColumns {
  Lanes rate, bias; ///< e^{A_log}, dt_bias
  Lanes lower_bound;
};

struct GateLanes {
  Lanes alpha, log_decay;
};

template <GateForm form> GateLanes gate_of(Lanes logit, const GateColumns& column, bool with_log_decay) {
  if constexpr (form == GateForm::sigmoid) {
    const Logistic logistic(logit);
    return {logistic.rising, with_log_decay ? -logistic.softplus_of_negative() : Lanes{}};
  } else {
    const Lanes y = within_fp32(logit + column.bias);
    const Lanes g = form == GateForm::softplus ? within_fp32(-column.rate * Logistic(y).softplus())
                                               : column.lower_bound * Logistic(within_fp32(column.rate * y)).rising;
    return {cpu::exp_of(g), g};
  }
}

/// ln alpha's derivatives with respect to the logit (or dt_bias) and A_log.
struct GateSlopes {
  Lanes logit, A_log;
};

template <GateForm form> GateSlopes gate_slopes(Lanes logit, const GateColumns& column) {
  if constexpr (form == GateForm::sigmoid) {
    return {Logistic(logit).falling, Lanes{}};
  } else if constexpr (form == GateForm::softplus) {
    const Logistic logistic(within_fp32(logit + column.bias));
    return {-column.rate * logistic.rising, within_fp32(-column.rate * logistic.softplus())};
  } else {
    const Logistic logistic(within_fp32(column.rate * within_fp32(logit + column.bias)));
    const Lanes bend = column.lower_bound * (logistic.rising * logistic.falling);
    return {bend * column.rate, bend * logistic.x};
  }
}

} // namespace kdacheck::modules
