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

/// base + ln(1 + e) for base >= 0 and e in [0,1], within 4 units in the last place: ln(1 + e) = 2 artanh(s), s = e / (2 + e), by the odd
/// polynomial of degree 11 that errs least in relation to it on s <= 1/3, by 2^-30.7 with the coefficients rounded (Remez).
inline Lanes plus_log1p(Lanes base, Lanes e) {
  const Lanes s = e / (cpu::broadcast(2.0f) + e), square = s * s;
  Lanes p = cpu::broadcast(0x1.f1733ep-3f);
  for (float term : {0x1.b6e6ccp-3f, 0x1.2508b2p-2f, 0x1.9996bp-2f, 0x1.555558p-1f, 2.0f})
    p = cpu::multiply_add(p, square, cpu::broadcast(term));
  return cpu::multiply_add(s, p, base);
}

inline constexpr float most = std::numeric_limits<float>::max();
inline Lanes within_fp32(Lanes x) { return at_most(at_least(x, -most), most); }

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

/// sigmoid(x) of x and e^-|x|, with one division.
inline Lanes sigmoid_of(Lanes x, Lanes small) {
  const Lanes one = cpu::broadcast(1.0f);
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
  Lanes softplus() const { return plus_log1p(at_least(x, 0.0f), small); }
};

/// Parameters of as many channels.
struct GateColumns {
  Lanes rate, bias; ///< e^{A_log}, dt_bias
  Lanes lower_bound;
};

struct GateLanes {
  Lanes alpha, log_decay;
};

/// Gates of several registers, step by step for all of them: a register's steps wait for one another, and one after the other they fill
/// what the machine looks ahead with (a third slower). Each has the bits that it has alone. log_decay of the sigmoid is only computed
/// where it is asked for. A call in the innermost loop made softplus a fifth slower: its constants were loaded anew for every register.
template <GateForm form, bool with_log_decay, int count>
[[gnu::always_inline]] inline void gates_of(const Lanes (&logit)[count], const GateColumns (&column)[count], GateLanes (&gate)[count]) {
  Lanes x[count], small[count];
#pragma GCC unroll 8
  for (int i = 0; i < count; ++i) {
    if constexpr (form == GateForm::sigmoid) x[i] = logit[i];
    if constexpr (form == GateForm::softplus) x[i] = at_most(logit[i] + column[i].bias, most); // no rate, be it 0, makes it NaN
    if constexpr (form == GateForm::bounded) x[i] = column[i].rate * within_fp32(logit[i] + column[i].bias);
  }
#pragma GCC unroll 8
  for (int i = 0; i < count; ++i) small[i] = cpu::exp_below_one(negative(x[i]));
#pragma GCC unroll 8
  for (int i = 0; i < count; ++i) {
    Lanes& g = gate[i].log_decay;
    if constexpr (form == GateForm::sigmoid) {
      gate[i].alpha = sigmoid_of(x[i], small[i]);
      if constexpr (with_log_decay) g = -plus_log1p(at_least(-x[i], 0.0f), small[i]);
    }
    if constexpr (form == GateForm::softplus) {
      g = -column[i].rate * plus_log1p(at_least(x[i], 0.0f), small[i]);
      if constexpr (with_log_decay) g = at_least(g, -most);
    }
    if constexpr (form == GateForm::bounded) g = column[i].lower_bound * sigmoid_of(x[i], small[i]);
  }
  if constexpr (form != GateForm::sigmoid)
#pragma GCC unroll 8
    for (int i = 0; i < count; ++i) gate[i].alpha = cpu::exp_below_one(gate[i].log_decay);
}

template <GateForm form, bool with_log_decay> [[gnu::always_inline]] inline GateLanes gate_of(Lanes logit, const GateColumns& column) {
  const Lanes one_logit[1] = {logit};
  const GateColumns one_column[1] = {column};
  GateLanes gate[1];
  gates_of<form, with_log_decay>(one_logit, one_column, gate);
  return gate[0];
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
