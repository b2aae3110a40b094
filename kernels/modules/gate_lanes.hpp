#pragma once
// The gate forms on a register of logits at a time, without cancellation at either end.

#include "../../reference/problem.hpp"
#include "../cpu/lanes.hpp"

#include <bit>
#include <limits>

namespace kdacheck::modules {

using cpu::at_least;
using cpu::at_most;
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

inline Lanes within_fp32(Lanes x) {
  constexpr float most = std::numeric_limits<float>::max();
  return at_most(at_least(x, -most), most);
}

/// -|x|; -NaN for NaN.
inline Lanes negative(Lanes x) { return std::bit_cast<Lanes>(std::bit_cast<cpu::IntLanes>(x) | std::numeric_limits<std::int32_t>::min()); }

/// The largest magnitude seen in each lane, as the bits of its negative: unsigned numbers, which order magnitudes, infinity, NaN.
using Magnitudes = std::uint32_t __attribute__((vector_size(cpu::lane_count * sizeof(std::uint32_t))));
inline Magnitudes larger(Magnitudes seen, Lanes x) {
  const auto bits = std::bit_cast<Magnitudes>(negative(x));
  return seen > bits ? seen : bits;
}
inline bool finite(Magnitudes seen) {
  bool all = true;
  for (std::int64_t lane = 0; lane < cpu::lane_count; ++lane) all = all && seen[lane] < 0xff800000u;
  return all;
}

/// `below` where the sign bit of x is set, else `above`. (A comparison with zero occupies the units that multiply.)
inline Lanes by_sign(Lanes x, Lanes below, Lanes above) {
#ifdef __AVX512DQ__
  return _mm512_mask_blend_ps(_mm512_movepi32_mask(_mm512_castps_si512(x)), above, below);
#else
  return std::bit_cast<cpu::IntLanes>(x) < 0 ? below : above;
#endif
}

/// sigmoid(x) from one exponential of -|x| and one division.
inline Lanes sigmoid_of(Lanes x) {
  const Lanes small = cpu::exp_below_one(negative(x)), one = cpu::broadcast(1.0f);
  return by_sign(x, small, one) / (one + small);
}

/// sigmoid(x), sigmoid(-x) and softplus(x) from one exponential of -|x|.
struct Logistic {
  Lanes rising, falling, small, x;

  explicit Logistic(Lanes argument) : x(argument) {
    small = cpu::exp_below_one(negative(x));
    const Lanes large_side = cpu::broadcast(1.0f) / (cpu::broadcast(1.0f) + small), small_side = small * large_side;
    rising = by_sign(x, small_side, large_side);
    falling = by_sign(x, large_side, small_side);
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

/// log_decay of the sigmoid is only computed where it is asked for. A call in the innermost loop made softplus a fifth slower: its
/// constants were loaded anew for every register.
template <GateForm form, bool with_log_decay> [[gnu::always_inline]] inline GateLanes gate_of(Lanes logit, const GateColumns& column) {
  if constexpr (form == GateForm::sigmoid) {
    Lanes log_decay{};
    if constexpr (with_log_decay) log_decay = -Logistic(logit).softplus_of_negative();
    return {sigmoid_of(logit), log_decay};
  } else {
    const Lanes y = within_fp32(logit + column.bias);
    const Lanes g = form == GateForm::softplus ? within_fp32(-column.rate * Logistic(y).softplus())
                                               : column.lower_bound * sigmoid_of(within_fp32(column.rate * y));
    return {cpu::exp_below_one(g), g};
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
