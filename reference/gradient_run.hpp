#pragma once
// Certified gradients of a whole problem in one arithmetic. States are recomputed from checkpoints, a segment at a time;
// jobs are (sequence, key head), because value heads of a group add up in dq and dk.

#include "certified_adjoint.hpp"
#include "forward_run.hpp"

namespace kdacheck::certified {

/// Tokens between two checkpoints: the power of two next to sqrt(T) / 2, which balances checkpoints against states kept in
/// a segment. T = 65,536 at K = V = 128 in fp64: 512 checkpoints of 128 KiB and 128 states.
inline std::int64_t checkpoint_distance(std::int64_t T) {
  std::int64_t distance = 8;
  while (distance < 256 && 4 * distance * distance < T) distance *= 2;
  return distance;
}

/// Gradients of A_log and dt_bias of one (sequence, head): summed over sequences afterwards, in their order.
template <class A> struct ParameterSums {
  using Sum = typename A::Sum;
  Ball<Sum> A_log = exact_ball<Sum>(Bound<Sum>{});
  std::vector<Ball<Sum>> dt_bias; ///< [K]
};

/// A ball in a type at least as precise.
template <class Wide, class N> inline Ball<Wide> widen(const Ball<N>& x) {
  if constexpr (std::is_same_v<Wide, N>)
    return x;
  else
    return {exactly<Wide>(x.mid), x.radius};
}

template <class A> inline void store_ball(Enclosed& tensor, std::size_t at, const auto& ball) {
  store_number(tensor, at, ball.mid, ball.radius);
}

/// Channels [i, i + lanes) of a row, the rest zero.
template <class Column, class Scalar> inline Column load_channels(const Scalar* row, std::int64_t i, std::int64_t count) {
  if constexpr (std::is_same_v<Column, Scalar>) {
    return row[i];
  } else {
    Column result{};
    for (int l = 0; l < pack_lanes && l < count; ++l)
      if constexpr (requires { result.low; })
        set_lane(result.high, l, row[i + l].high), set_lane(result.low, l, row[i + l].low);
      else
        set_lane(result, l, row[i + l]);
    return result;
  }
}

/// A ball of effective inputs in the precision of the columns; the rounding goes into the radius.
template <class Column, class Input> inline Ball<Column> narrowed(const Ball<Input>& x) {
  if constexpr (std::is_same_v<Column, Input>)
    return x;
  else
    return {x.mid.high, x.radius + absolute(x.mid.low)};
}

template <class A> class GroupGradient {
  using Scalar = typename A::Scalar;
  using Column = typename A::Column;
  using Input = typename A::Input;
  using Real = Bound<Column>;
  using Channels = Ball<Column>; ///< as many channels as a column number has lanes
  static constexpr std::int64_t lanes = lanes_of<Real>;

public:
  /// One sequence and one key head of a problem; `parameters` are those of the group's value heads.
  GroupGradient(const Problem& problem, const Sequence& sequence, std::int64_t key_head, Truth& truth, ParameterSums<A>* parameters)
      : problem_(problem), sequence_(sequence), truth_(truth), parameters_(parameters), K_(problem.shape.K), V_(problem.shape.V),
        group_(problem.shape.HV / problem.shape.H), blocks_(column_blocks<A>(problem)), packs_((K_ + lanes - 1) / lanes),
        distance_(checkpoint_distance(sequence.length)), forward_(problem), adjoint_(problem) {
    for (std::int64_t member = 0; member < group_; ++member) heads_.push_back(Head{{problem, sequence, key_head * group_ + member}});
  }

  void run() {
    for (Head& head : heads_) {
      run_forward_head<A>(head.rows, truth_, distance_,
                          [&](std::int64_t, const std::vector<ColumnState<A>>& columns) { head.checkpoints.push_back(columns); });
      load_adjoint(head);
    }
    for (std::int64_t first = (sequence_.length - 1) / distance_ * distance_; first >= 0 && sequence_.length > 0; first -= distance_)
      segment(first, std::min(distance_, sequence_.length - first));
    if (!problem_.initial_state.empty())
      for (const Head& head : heads_) store_adjoint(head);
  }

private:
  struct Head {
    HeadRows rows;
    SegmentBuilder<A> builder{rows};
    std::vector<std::vector<ColumnState<A>>> checkpoints{}; ///< [segment][block]
    std::vector<AdjointColumns<A>> adjoint{};               ///< [block]
  };

  /// Lambda starts as the cotangent of the final state.
  void load_adjoint(Head& head) {
    head.adjoint.resize(static_cast<std::size_t>(blocks_));
    for (std::int64_t block = 0; block < blocks_; ++block) {
      auto& columns = head.adjoint[static_cast<std::size_t>(block)];
      columns.adjoint.assign(static_cast<std::size_t>(padded_channels(K_)), Column{});
      for (std::int64_t i = 0; i < K_ && !problem_.d_final_state.empty(); ++i)
        columns.adjoint[static_cast<std::size_t>(i)] = exactly<Column>(load_lanes<Real>(
            problem_.d_final_state.data() + head.rows.state() + static_cast<std::size_t>(i * V_ + block * lanes), V_ - block * lanes));
    }
  }

  void store_adjoint(const Head& head) {
    for (std::int64_t block = 0; block < blocks_; ++block)
      for (std::int64_t i = 0; i < K_; ++i) {
        const auto& columns = head.adjoint[static_cast<std::size_t>(block)];
        store_columns(truth_[Input_::initial_state], head.rows.state() + static_cast<std::size_t>(i * V_ + block * lanes),
                      V_ - block * lanes, columns.adjoint[static_cast<std::size_t>(i)], columns.epsilon);
      }
  }

  void segment(std::int64_t first, std::int64_t length) {
    query_.assign(static_cast<std::size_t>(length * packs_), exact_ball<Column>(Real{}));
    key_ = query_;
    sums_.resize(static_cast<std::size_t>(length));
    for (Head& head : heads_) {
      head.builder.build(first, length, inputs_);
      for (auto& sums : sums_) sums.clear(inputs_.channels, problem_.options.rule == Rule::dplr);
      for (std::int64_t block = 0; block < blocks_; ++block) {
        recompute(head, first, block);
        retreat(head, first, block);
      }
      for (std::int64_t t = length - 1; t >= 0; --t) finish(head, first + t, t);
      head.checkpoints.pop_back();
    }
    const Head& any = heads_.front();
    for (std::int64_t t = 0; t < length; ++t) {
      direction(any, problem_.q, first + t, query_.data() + t * packs_, inputs_.row(inputs_.query, t),
                inputs_.bound[static_cast<std::size_t>(t)].query_error, truth_[Input_::q]);
      direction(any, problem_.k, first + t, key_.data() + t * packs_, inputs_.row(inputs_.key, t),
                inputs_.bound[static_cast<std::size_t>(t)].key_error, truth_[Input_::k]);
    }
  }

  /// States of a block of columns in the segment, from its checkpoint.
  void recompute(const Head& head, std::int64_t first, std::int64_t block) {
    history_.resize(inputs_.length, inputs_.channels);
    const ColumnState<A>& start = head.checkpoints.back()[static_cast<std::size_t>(block)];
    std::copy(start.state.begin(), start.state.end(), history_.state_at(0));
    history_.bound[0] = start.bound;
    for (std::int64_t t = 0; t < inputs_.length; ++t) {
      const auto at = static_cast<std::size_t>(t);
      history_.bound[at + 1] = history_.bound[at];
      history_.result[at] = forward_(inputs_, t, row_of(problem_.v, head, first + t, block), history_.state_at(t), history_.state_at(t + 1),
                                     history_.bound[at + 1]);
    }
  }

  void retreat(Head& head, std::int64_t first, std::int64_t block) {
    for (std::int64_t t = inputs_.length - 1; t >= 0; --t) {
      const ValueGradient<A> value =
          adjoint_(inputs_, history_, t, row_of(problem_.v, head, first + t, block), row_of(problem_.d_o, head, first + t, block),
                   head.adjoint[static_cast<std::size_t>(block)], sums_[static_cast<std::size_t>(t)]);
      store_columns(truth_[Input_::v], value_at(head, first + t, block), V_ - block * lanes, value.value, value.radius);
    }
  }

  /// A column block of a row of v or do; zero where the tensor is absent.
  Column row_of(const std::vector<float>& tensor, const Head& head, std::int64_t t, std::int64_t block) const {
    if (tensor.empty()) return Column{};
    return exactly<Column>(load_lanes<Real>(tensor.data() + value_at(head, t, block), V_ - block * lanes));
  }
  std::size_t value_at(const Head& head, std::int64_t t, std::int64_t block) const {
    return head.rows.value_row(t) * static_cast<std::size_t>(V_) + static_cast<std::size_t>(block * lanes);
  }

  static double total(const Real& x) { return sum_lanes(x) * rounded_up + bound_floor; }
  static Real root(const Real& square) { return square_root(square) * rounded_up + norm_floor; }
  static double scalar_root(const Real& squares) { return std::sqrt(sum_lanes(squares)) * rounded_up + norm_floor; }

  /// Norms of the rows [i, i + lanes) over all columns, from sums of squares over a few rows each.
  Real row_norms(const std::vector<Real>& squares, std::int64_t i) const {
    Real sums{};
    for (int l = 0; l < lanes && i + l < inputs_.channels; l += static_cast<int>(rows_per_square)) {
      const double square = sum_lanes(squares[static_cast<std::size_t>((i + l) / rows_per_square)]);
      for (int row = l; row < lanes && row < l + rows_per_square; ++row) set_lane(sums, row, square);
    }
    return root(sums);
  }

  /// Bounds one token's sums of one head, and stores what belongs to this head alone.
  void finish(Head& head, std::int64_t token, std::int64_t t) {
    const TokenSums<A>& sums = sums_[static_cast<std::size_t>(t)];
    const StepBound& step = inputs_.bound[static_cast<std::size_t>(t)];
    const bool dplr = problem_.options.rule == Rule::dplr;
    const double column_error = AdjointStep<A>::column_sum_error(V_);
    const double decay_error = 1.01 * (Rounding<Column>::product + step.alpha_relative);
    const double query_error = total(sums.query_error) * rounded_up, key_error = total(sums.key_error);
    const double key_by_decay = total(sums.key_by_decay), key_by_flush = total(sums.key_by_flush);
    const double correction_error = scalar_root(sums.correction_error_square);
    const double adjoint_error = scalar_root(sums.adjoint_error_square), state_error = scalar_root(sums.state_error_square);
    const double both_errors = total(sums.state_times_adjoint_error), flushed = total(sums.flushed);
    const std::size_t row = head.rows.value_row(token);
    const Scalar* alpha = inputs_.row(inputs_.alpha, t);
    decay_.resize(static_cast<std::size_t>(packs_));
    for (std::int64_t pack = 0; pack < packs_; ++pack) {
      const std::int64_t i = pack * lanes;
      const auto at = static_cast<std::size_t>(pack), here = static_cast<std::size_t>(t * packs_ + pack);
      const Real decay = leading(load_channels<Column>(alpha, i, K_ - i)) * ((1 + step.alpha_relative) * rounded_up);
      const Real decayed = row_norms(sums.decayed_square, i), adjoint = row_norms(sums.adjoint_square, i);
      const Real key_radius = key_error + decayed * correction_error + decay * key_by_decay + step.alpha_flush * key_by_flush;
      const Real decay_radius = decayed * (adjoint_error + (column_error + decay_error) * (adjoint + adjoint_error)) +
                                decay * (state_error * adjoint + both_errors) + step.alpha_flush * flushed;
      query_[here] = query_[here] + Channels{sums.query[at], broadcast<Real>(query_error)};
      key_[here] = key_[here] + Channels{sums.key[at], key_radius * rounded_up};
      decay_[at] = {sums.decay[at], decay_radius * rounded_up + bound_floor};
      if (dplr) {
        const std::size_t element = row * static_cast<std::size_t>(K_) + static_cast<std::size_t>(i);
        store_columns(truth_[Input_::a], element, K_ - i, sums.erase[at], broadcast<Real>(total(sums.erase_error)));
        store_columns(truth_[Input_::b], element, K_ - i, sums.read[at], broadcast<Real>(total(sums.read_error)));
      }
    }
    gate(head, token);
    if (!dplr) {
      const Ball<Scalar> strength{sum_lanes(sums.strength), total(sums.strength_error)};
      if (problem_.options.beta == BetaForm::value)
        store_ball<A>(truth_[Input_::beta], row, strength);
      else
        store_ball<A>(truth_[Input_::beta], row, strength * narrow_lane<Scalar>(head.builder.strength(token).slope, 0));
    }
  }

  /// From d ln alpha to the gate's own inputs.
  void gate(const Head& head, std::int64_t token) {
    const GateForm form = problem_.options.gate;
    if (form == GateForm::absent) return;
    const std::size_t row = head.rows.value_row(token) * static_cast<std::size_t>(K_);
    const bool parametric = form == GateForm::softplus || form == GateForm::bounded;
    for (std::int64_t i = 0; i < K_; i += lanes) {
      Channels& arriving = decay_[static_cast<std::size_t>(i / lanes)];
      const EnclosedGate<Input> slopes = form == GateForm::log_decay ? EnclosedGate<Input>{} : head.builder.gate(token, i);
      const Channels leaving = form == GateForm::log_decay ? arriving : arriving * narrowed<Column>(slopes.by_input);
      store_columns(truth_[Input_::g], row + static_cast<std::size_t>(i), K_ - i, leaving.mid, leaving.radius);
      if (parametric) add_parameters(head, i, arriving * narrowed<Column>(slopes.by_A_log), leaving);
    }
  }

  void add_parameters(const Head& head, std::int64_t i, const Channels& by_A_log, const Channels& by_bias) {
    using Sum = typename A::Sum;
    ParameterSums<A>& parameters = parameters_[head.rows.head % group_];
    const auto channel = [](const Channels& x, int l) { return widen<Sum>(Ball<Scalar>{number_lane(x.mid, l), lane(x.radius, l)}); };
    for (int l = 0; l < lanes && i + l < K_; ++l) {
      parameters.A_log = parameters.A_log + channel(by_A_log, l);
      auto& bias = parameters.dt_bias[static_cast<std::size_t>(i + l)];
      bias = bias + channel(by_bias, l);
    }
  }

  /// dq or dk of a token, through the normalisation: with k' = x r, r = 1/sqrt(sum x^2 + 1e-6):  dx = r (dk' - k' (k'.dk')).
  void direction(const Head& head, const std::vector<float>& tensor, std::int64_t t, const Channels* gradient, const Scalar* unit,
                 double unit_error, Enclosed& out) {
    const std::size_t row = head.rows.key_row(t) * static_cast<std::size_t>(K_);
    const auto store = [&](std::int64_t i, const Channels& x) {
      store_columns(out, row + static_cast<std::size_t>(i), K_ - i, x.mid, x.radius);
    };
    if (!problem_.options.l2norm) {
      for (std::int64_t i = 0; i < K_; i += lanes) store(i, gradient[i / lanes]);
      return;
    }
    const auto row_of_unit = [&](std::int64_t i) { return Channels{load_channels<Column>(unit, i, K_ - i), broadcast<Real>(unit_error)}; };
    const Channels inverse = narrowed<Column>(head.builder.inverse_length(tensor, t));
    Ball<Scalar> along = exact_ball<Scalar>(Bound<Scalar>{});
    for (std::int64_t i = 0; i < K_; i += lanes) {
      const Channels products = row_of_unit(i) * gradient[i / lanes];
      for (int l = 0; l < lanes && i + l < K_; ++l) along = along + Ball<Scalar>{number_lane(products.mid, l), lane(products.radius, l)};
    }
    const Channels everywhere{spread<Column>(along.mid), broadcast<Real>(along.radius)};
    for (std::int64_t i = 0; i < K_; i += lanes) store(i, inverse * (gradient[i / lanes] - row_of_unit(i) * everywhere));
  }

  using Input_ = kdacheck::Input;
  const Problem& problem_;
  Sequence sequence_;
  Truth& truth_;
  ParameterSums<A>* parameters_; ///< [group]
  std::int64_t K_, V_, group_, blocks_;
  std::int64_t packs_; ///< of channels
  std::int64_t distance_;
  ForwardStep<A> forward_;
  AdjointStep<A> adjoint_;
  std::vector<Head> heads_;
  Segment<A> inputs_;
  StateHistory<A> history_;
  std::vector<TokenSums<A>> sums_;    ///< [segment]
  std::vector<Channels> query_, key_; ///< [segment, packs]: of the group
  std::vector<Channels> decay_;       ///< [packs]: d ln alpha of a token
};

/// Sums what the sequences gave, in their order.
template <class A>
inline void store_parameters(const Problem& problem, const std::vector<ParameterSums<A>>& parameters, std::int64_t N, Truth& truth) {
  using Sum = typename A::Sum;
  const std::int64_t HV = problem.shape.HV, K = problem.shape.K;
  const auto over_sequences = [&](std::int64_t head, auto part) {
    Ball<Sum> sum = exact_ball<Sum>(Bound<Sum>{});
    for (std::int64_t n = 0; n < N; ++n) sum = sum + part(parameters[static_cast<std::size_t>(n * HV + head)]);
    return sum;
  };
  for (std::int64_t head = 0; head < HV; ++head) {
    store_ball<A>(truth[Input::A_log], static_cast<std::size_t>(head),
                  over_sequences(head, [](const ParameterSums<A>& sums) { return sums.A_log; }));
    for (std::int64_t i = 0; i < K && !problem.dt_bias.empty(); ++i)
      store_ball<A>(truth[Input::dt_bias], static_cast<std::size_t>(head * K + i),
                    over_sequences(head, [&](const ParameterSums<A>& sums) { return sums.dt_bias[static_cast<std::size_t>(i)]; }));
  }
}

/// Fills o, final_state and the gradients of all tensors that are present.
template <class A> inline void run_gradient(const Problem& problem, Truth& truth) {
  using Sum = typename A::Sum;
  require_strict_arithmetic();
  const std::int64_t N = sequence_count(problem), H = problem.shape.H, HV = problem.shape.HV;
  const typename A::Precision calling_thread(truth.bits);
  allocate_outputs<A>(problem, truth);
  for (Input input : all_inputs)
    if (!problem[input].empty()) truth[input] = make_enclosed<typename A::Scalar>(element_count(shape_of(input, problem.shape, N)));
  const bool parametric = !problem.A_log.empty();
  ParameterSums<A> none;
  none.dt_bias.assign(parametric ? static_cast<std::size_t>(problem.shape.K) : 0, exact_ball<Sum>(Bound<Sum>{}));
  std::vector<ParameterSums<A>> parameters(static_cast<std::size_t>(N * HV), none);
  const std::vector<Sequence> all = sequences(problem);
  for_each_job(N * H, [&](std::int64_t job) {
    const typename A::Precision precision(truth.bits);
    GroupGradient<A>(problem, all[static_cast<std::size_t>(job / H)], job % H, truth, parameters.data() + job * (HV / H)).run();
  });
  if (parametric) store_parameters<A>(problem, parameters, N, truth);
}

} // namespace kdacheck::certified
