#pragma once
// Effective inputs of a run of tokens of one value head: what the recurrence multiplies by, with the scalars of its bound.

#include "enclosed_gate.hpp"
#include "step_bound.hpp"

#include <vector>

namespace kdacheck::certified {

inline constexpr double l2norm_added = 1e-6; ///< inside the square root of the kernel's normalisation

/// An arithmetic names four number types: Scalar (one channel of an input), Column (columns of the state that travel
/// together), Input (channels while the effective inputs are computed; may be more precise than Scalar) and Sum (of
/// parameter gradients over all tokens; may be more precise too).
/// Precision(bits) is held while an arithmetic is in use.
struct FixedPrecision {
  explicit FixedPrecision(int) {}
};
struct Fp64Arithmetic {
  using Precision = FixedPrecision;
  using Scalar = double;
  using Column = Pack;
  using Input = DoubleDouble<Pack>;
  using Sum = double_double;
};
struct DoubleDoubleArithmetic {
  using Precision = FixedPrecision;
  using Scalar = double_double;
  using Column = DoubleDouble<Pack>;
  using Input = DoubleDouble<Pack>;
  using Sum = double_double;
};
/// The same for a forward pass alone, in which nothing is added up over columns: their number makes no difference to a bit.
struct DoubleDoubleForward : DoubleDoubleArithmetic {
  using Column = DoubleDouble<RegisterPack>;
};

/// The value head of a sequence, and where its rows lie in the tensors.
struct HeadRows {
  const Problem& problem;
  Sequence sequence;
  std::int64_t head = 0;

  std::int64_t key_head() const { return head / (problem.shape.HV / problem.shape.H); }
  std::size_t value_row(std::int64_t t) const { return static_cast<std::size_t>((sequence.first + t) * problem.shape.HV + head); }
  std::size_t key_row(std::int64_t t) const { return static_cast<std::size_t>((sequence.first + t) * problem.shape.H + key_head()); }
  std::size_t state() const {
    return static_cast<std::size_t>((sequence.index * problem.shape.HV + head) * problem.shape.K * problem.shape.V);
  }
};

/// Up to lanes_of<Real> consecutive floats, the rest zero.
template <class Real> inline Real load_lanes(const float* values, std::int64_t count) {
  Real result{};
  if constexpr (lanes_of<Real> > 1)
    if (count >= lanes_of<Real>) {
      return load_floats<Real>(values);
    }
  for (int l = 0; l < lanes_of<Real> && l < count; ++l) set_lane(result, l, static_cast<double>(values[l]));
  return result;
}

/// The first `count` lanes, the rest zero.
inline double mask_lanes(double x, std::int64_t) { return x; }
inline Pack mask_lanes(const Pack& x, std::int64_t count) { return choose(lane_numbers < count, x, Pack{}); }

/// One lane of a number.
template <class N> inline auto number_lane(const N& x, int l) {
  if constexpr (requires { x.high; })
    return double_double{lane(x.high, l), lane(x.low, l)};
  else if constexpr (Multiprecision<N>)
    return x;
  else
    return lane(x, l);
}

/// One lane of a ball, rounded to the scalar of the arithmetic; the rounding goes into the radius.
template <class Scalar, class N> inline Ball<Scalar> narrow_lane(const Ball<N>& x, int l) {
  if constexpr (std::is_same_v<Scalar, double>)
    return {lane(x.mid.high, l), lane(x.radius, l) + std::fabs(lane(x.mid.low, l))};
  else if constexpr (requires { x.mid.high; })
    return {{lane(x.mid.high, l), lane(x.mid.low, l)}, lane(x.radius, l)};
  else
    return {x.mid, x.radius};
}

/// Channels are padded with zeros to a multiple of four.
inline constexpr std::int64_t padded_channels(std::int64_t K) { return (K + 3) / 4 * 4; }

template <class A> struct Segment {
  using Scalar = typename A::Scalar;
  std::int64_t length = 0;
  std::int64_t channels = 0;             ///< K, padded
  std::vector<Scalar> alpha, query, key; ///< [length, channels]
  std::vector<Scalar> erase, read;       ///< a, b of DPLR
  std::vector<Scalar> beta;              ///< [length]
  std::vector<StepBound> bound;          ///< [length]

  const Scalar* row(const std::vector<Scalar>& tensor, std::int64_t t) const { return tensor.data() + t * channels; }
};

/// The leading doubles of x[i] ...: as many as there are lanes.
template <class Real, class Scalar> [[gnu::always_inline]] inline Real leading_lanes(const Scalar* x, std::int64_t i) {
  const auto four = [x](std::int64_t at) __attribute__((always_inline)) {
    return HalfPack{leading(x[at]), leading(x[at + 1]), leading(x[at + 2]), leading(x[at + 3])};
  };
  if constexpr (lanes_of<Real> == 1)
    return leading(x[i]);
  else if constexpr (std::is_same_v<Scalar, double>)
    return load_doubles<Real>(x + i);
  else if constexpr (std::is_same_v<Real, HalfPack>)
    return four(i);
  else
    return joined(four(i), four(i + 4));
}

/// Sum of what `term(i)` gives for channels from i on, one or as many as a pack has lanes: in eight chains, within a relative
/// K 2^-53 of the sum of sizes.
inline double sum_of(std::int64_t K, auto term) {
  Pack sum{};
  std::int64_t i = 0;
  for (; i + pack_lanes <= K; i += pack_lanes) sum = sum + term.template operator()<Pack>(i);
  double rest = sum_lanes(sum);
  for (; i < K; ++i) rest += term.template operator()<double>(i);
  return rest;
}

/// ||x||^2 of the leading doubles.
template <class Scalar> inline double square_of(const Scalar* x, std::int64_t K) {
  return sum_of(
      K, [x]<class Real>(std::int64_t i) __attribute__((always_inline)) {
        const Real entry = leading_lanes<Real>(x, i);
        return Real(entry * entry);
      });
}

template <class A> class SegmentBuilder {
  using Scalar = typename A::Scalar;
  using Input = typename A::Input;
  using Real = Bound<Input>;

public:
  explicit SegmentBuilder(const HeadRows& rows) : rows_(rows), options_(rows.problem.options), K_(rows.problem.shape.K) {
    const auto& A_log = rows.problem.A_log;
    if (!A_log.empty()) rate_ = gate_rate<Input>(A_log[static_cast<std::size_t>(rows.head)]);
  }

  /// Effective inputs of tokens [first, first + length).
  void build(std::int64_t first, std::int64_t length, Segment<A>& segment) const {
    const bool dplr = options_.rule == Rule::dplr;
    const std::int64_t channels = padded_channels(K_);
    const auto size = static_cast<std::size_t>(length * channels);
    segment.length = length;
    segment.channels = channels;
    // padding is never written: it stays zero where the size stays
    const auto make_room = [](std::vector<Scalar>& tensor, std::size_t entries) {
      if (tensor.size() != entries) tensor.assign(entries, Scalar{});
    };
    for (auto* tensor : {&segment.alpha, &segment.query, &segment.key}) make_room(*tensor, size);
    for (auto* tensor : {&segment.erase, &segment.read}) make_room(*tensor, dplr ? size : 0);
    segment.beta.assign(static_cast<std::size_t>(length), Scalar{});
    segment.bound.assign(static_cast<std::size_t>(length), StepBound{});
    for (std::int64_t t = 0; t < length; ++t) {
      StepBound& step = segment.bound[static_cast<std::size_t>(t)];
      Scalar* alpha = segment.alpha.data() + t * channels;
      decays(first + t, alpha, step);
      direction(rows_.problem.q, first + t, segment.query.data() + t * channels, step.query_norm, step.query_error);
      Scalar* key = segment.key.data() + t * channels;
      direction(rows_.problem.k, first + t, key, step.key_norm, step.key_error);
      if (dplr)
        low_rank(first + t, alpha, segment.erase.data() + t * channels, segment.read.data() + t * channels, step);
      else
        strengthen(first + t, alpha, key, segment.beta[static_cast<std::size_t>(t)], step);
    }
  }

  /// Gate of as many channels from i on as an Input holds.
  EnclosedGate<Input> gate(std::int64_t t, std::int64_t i) const {
    const Problem& problem = rows_.problem;
    const auto at = rows_.value_row(t) * static_cast<std::size_t>(K_) + static_cast<std::size_t>(i);
    const Real x = problem.g.empty() ? Real{} : load_lanes<Real>(problem.g.data() + at, K_ - i);
    const Real bias = problem.dt_bias.empty() ? Real{} : load_lanes<Real>(problem.dt_bias.data() + rows_.head * K_ + i, K_ - i);
    return enclosed_gate<Input>(options_, x, bias, rate_);
  }

  /// beta and its derivative, in every lane (KDA).
  EnclosedStrength<Input> strength(std::int64_t t) const {
    return enclosed_strength<Input>(options_, broadcast<Real>(rows_.problem.beta[rows_.value_row(t)]));
  }

  /// 1 / sqrt(sum x^2 + 1e-6) of a row of q or k, in every lane.
  Ball<Input> inverse_length(const std::vector<float>& tensor, std::int64_t t) const {
    const float* x = tensor.data() + rows_.key_row(t) * static_cast<std::size_t>(K_);
    Ball<Input> sum = exact_ball<Input>(Real{});
    for (std::int64_t i = 0; i < K_; i += lanes_of<Real>) {
      const Ball<Input> block = exact_ball<Input>(load_lanes<Real>(x + i, K_ - i));
      sum = sum + block * block;
    }
    Ball<Input> total = exact_ball<Input>(broadcast<Real>(l2norm_added));
    for (int l = 0; l < lanes_of<Real>; ++l) total = total + in_every_lane(sum, l);
    return exact_ball<Input>(broadcast<Real>(1.0)) / square_root(total);
  }

private:
  void decays(std::int64_t t, Scalar* alpha, StepBound& step) const {
    Real largest{}, relative{}, flush{}; // over the blocks, lane by lane
    for (std::int64_t i = 0; i < K_; i += lanes_of<Real>) {
      const std::int64_t count = std::min<std::int64_t>(lanes_of<Real>, K_ - i);
      const Narrow decay = narrow_decay(t, i);
      const Real value = mask_lanes(leading(decay.mid), count), radius = mask_lanes(decay.radius, count);
      largest = larger(largest, Real(value + radius));
      // a radius that is not small against its decay is an absolute one
      const auto small = radius <= 0x1p-10 * value;
      relative = larger(relative, choose(small, Real(radius / larger(value, broadcast<Real>(0x1p-1000))), Real{}));
      flush = larger(flush, choose(small, Real{}, radius));
      bool whole = false;
      if constexpr (std::is_same_v<Scalar, double>)
        if (whole = count == lanes_of<Real>; whole) store_doubles(alpha + i, decay.mid);
      for (int l = 0; !whole && l < count; ++l) alpha[i + l] = number_lane(decay.mid, l);
    }
    step.alpha_max = largest_lane(largest) * rounded_up;
    step.alpha_relative = largest_lane(relative) * rounded_up;
    step.alpha_flush = largest_lane(flush);
  }

  /// The decay of a block of channels in the precision of the columns.
  using Narrow = Ball<std::conditional_t<std::is_same_v<Scalar, double>, typename A::Column, Input>>;
  Narrow narrow_decay(std::int64_t t, std::int64_t i) const {
    if constexpr (std::is_same_v<Scalar, double>) {
      if (options_.gate == GateForm::log_decay) return rounded_decay(t, i);
      const Ball<Input> decay = gate(t, i).alpha;
      return {decay.mid.high, decay.radius + absolute(decay.mid.low)};
    } else {
      return gate(t, i).alpha;
    }
  }

  /// exp(g) without second words.
  Narrow rounded_decay(std::int64_t t, std::int64_t i) const {
    const auto at = rows_.value_row(t) * static_cast<std::size_t>(K_) + static_cast<std::size_t>(i);
    const Real x = load_lanes<Real>(rows_.problem.g.data() + at, K_ - i);
    const Real infinite = broadcast<Real>(std::numeric_limits<double>::infinity());
    const auto usable = absolute(x) <= -flush_threshold;
    const Real value = rounded_exp(choose(usable, x, Real{}));
    const Real error = choose(x == Real{}, Real{}, Real(rounded_exp_error * rounded_up * value));
    const auto vanishes = x < flush_threshold;
    return {choose(usable, value, Real{}), choose(usable, error, choose(vanishes, broadcast<Real>(flush_radius), infinite))};
  }

  void direction(const std::vector<float>& tensor, std::int64_t t, Scalar* out, double& norm, double& error) const {
    const float* x = tensor.data() + rows_.key_row(t) * static_cast<std::size_t>(K_);
    double error_square = 0;
    if (!options_.l2norm) {
      for (std::int64_t i = 0; i < K_; ++i) out[i] = exactly<Scalar>(static_cast<double>(x[i]));
    } else {
      const Ball<Input> inverse = inverse_length(tensor, t);
      for (std::int64_t i = 0; i < K_; i += lanes_of<Real>) {
        const std::int64_t count = std::min<std::int64_t>(lanes_of<Real>, K_ - i);
        const Ball<Input> unit = exact_ball<Input>(load_lanes<Real>(x + i, count)) * inverse;
        for (int l = 0; l < count; ++l) {
          const Ball<Scalar> narrow = narrow_lane<Scalar>(unit, l);
          out[i + l] = narrow.mid;
          error_square += narrow.radius * narrow.radius;
        }
      }
    }
    error = options_.l2norm ? std::sqrt(error_square) * rounded_up + norm_floor : 0;
    norm = std::sqrt(square_of(out, K_)) * rounded_up + error;
  }

  static Ball<Input> in_every_lane(const Ball<Input>& x, int l) {
    if constexpr (lanes_of<Real> == 1)
      return x;
    else
      return {{broadcast<Real>(x.mid.high[l]), broadcast<Real>(x.mid.low[l])}, broadcast<Real>(x.radius[l])};
  }

  void strengthen(std::int64_t t, const Scalar* alpha, const Scalar* key, Scalar& out, StepBound& step) const {
    const Ball<Scalar> beta = narrow_lane<Scalar>(strength(t).beta, 0);
    out = beta.mid;
    step.beta_error = beta.radius;
    const double value = leading(beta.mid);
    step.beta = std::fabs(value) * rounded_up + beta.radius;
    const double scaled = sum_of(
        K_, [&]<class Of>(std::int64_t i) __attribute__((always_inline)) {
          const Of entry = leading_lanes<Of>(alpha, i) * leading_lanes<Of>(key, i);
          return Of(entry * entry);
        });
    const double scaled_norm = (std::sqrt(scaled) * (1 + step.alpha_relative) + step.alpha_flush * step.key_norm) * rounded_up +
                               step.alpha_max * step.key_error + norm_floor;
    bound_kda_step(step, value, square_of(key, K_), scaled_norm * scaled_norm);
  }

  void low_rank(std::int64_t t, const Scalar* alpha, Scalar* erase, Scalar* read, StepBound& step) const {
    const std::size_t row = rows_.value_row(t) * static_cast<std::size_t>(K_);
    double scaled = 0, cross = 0;
    for (std::int64_t i = 0; i < K_; ++i) {
      erase[i] = exactly<Scalar>(static_cast<double>(rows_.problem.a[row + static_cast<std::size_t>(i)]));
      read[i] = exactly<Scalar>(static_cast<double>(rows_.problem.b[row + static_cast<std::size_t>(i)]));
      const double entry = leading(alpha[i]) * leading(erase[i]);
      scaled += entry * entry;
      cross += entry * leading(read[i]);
    }
    step.erase_norm = std::sqrt(square_of(erase, K_)) * rounded_up + norm_floor;
    step.read_norm = std::sqrt(square_of(read, K_)) * rounded_up + norm_floor;
    step.growth = rank_one_growth(step.alpha_max, step.erase_norm, step.read_norm, std::sqrt(scaled) * rounded_up + norm_floor, cross);
    // the bound is that of the computed decays: a perturbation of D adds its own norm
    step.growth += (step.alpha_relative * step.alpha_max + step.alpha_flush) * rounded_up;
  }

  HeadRows rows_;
  Options options_;
  std::int64_t K_;
  GateRate<Input> rate_;
};

} // namespace kdacheck::certified
