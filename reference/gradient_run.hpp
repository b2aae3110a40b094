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

template <class A> class GroupGradient {
  using Scalar = typename A::Scalar;
  using Column = typename A::Column;
  using Input = typename A::Input;
  using Real = Bound<Column>;
  using ScalarBall = Ball<Scalar>;
  static constexpr std::int64_t lanes = lanes_of<Real>;

public:
  /// One sequence and one key head of a problem; `parameters` are those of the group's value heads.
  GroupGradient(const Problem& problem, const Sequence& sequence, std::int64_t key_head, Truth& truth, ParameterSums<A>* parameters)
      : problem_(problem), sequence_(sequence), truth_(truth), parameters_(parameters), K_(problem.shape.K), V_(problem.shape.V),
        group_(problem.shape.HV / problem.shape.H), blocks_(column_blocks<A>(problem)), distance_(checkpoint_distance(sequence.length)),
        forward_(problem), adjoint_(problem) {
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
    const ScalarBall zero = exact_ball<Scalar>(Bound<Scalar>{});
    query_.assign(static_cast<std::size_t>(length * K_), zero);
    key_.assign(static_cast<std::size_t>(length * K_), zero);
    for (Head& head : heads_) {
      head.builder.build(first, length, inputs_);
      recompute(head, first);
      for (std::int64_t t = length - 1; t >= 0; --t) token(head, first, t);
      head.checkpoints.pop_back();
    }
    const Head& any = heads_.front();
    for (std::int64_t t = 0; t < length; ++t) {
      direction(any, problem_.q, first + t, query_.data() + t * K_, inputs_.row(inputs_.query, t),
                inputs_.bound[static_cast<std::size_t>(t)].query_error, truth_[Input_::q]);
      direction(any, problem_.k, first + t, key_.data() + t * K_, inputs_.row(inputs_.key, t),
                inputs_.bound[static_cast<std::size_t>(t)].key_error, truth_[Input_::k]);
    }
  }

  /// States of the segment from its checkpoint.
  void recompute(const Head& head, std::int64_t first) {
    history_.resize(inputs_.length, blocks_, inputs_.channels);
    for (std::int64_t block = 0; block < blocks_; ++block) {
      ColumnState<A> columns = head.checkpoints.back()[static_cast<std::size_t>(block)];
      history_.put(0, block, columns);
      for (std::int64_t t = 0; t < inputs_.length; ++t) {
        history_.result[history_.at(t, block)] = forward_(inputs_, t, row_of(problem_.v, head, first + t, block), columns);
        history_.put(t + 1, block, columns);
      }
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

  void token(Head& head, std::int64_t first, std::int64_t t) {
    sums_.clear(inputs_.channels, problem_.options.rule == Rule::dplr);
    for (std::int64_t block = 0; block < blocks_; ++block) {
      const ValueGradient<A> value =
          adjoint_(inputs_, history_, t, block, row_of(problem_.v, head, first + t, block), row_of(problem_.d_o, head, first + t, block),
                   head.adjoint[static_cast<std::size_t>(block)], sums_);
      store_columns(truth_[Input_::v], value_at(head, first + t, block), V_ - block * lanes, value.value, value.radius);
    }
    finish(head, first + t, t);
  }

  static double total(const Real& x) { return sum_lanes(x) * rounded_up + bound_floor; }
  static double root(double square) { return std::sqrt(square) * rounded_up + norm_floor; }
  static ScalarBall ball(const Column& sum, double radius) { return {sum_lanes(sum), radius}; }

  /// Adds the lanes of one token of one head, with their bounds, and stores what belongs to this head alone.
  void finish(Head& head, std::int64_t token, std::int64_t t) {
    const StepBound& step = inputs_.bound[static_cast<std::size_t>(t)];
    const bool dplr = problem_.options.rule == Rule::dplr;
    const double column_error = AdjointStep<A>::column_sum_error(V_);
    const double decay_error = 1.01 * (Rounding<Column>::product + step.alpha_relative);
    const double query_error = total(sums_.query_error), key_error = total(sums_.key_error);
    const double key_by_decay = total(sums_.key_by_decay), key_by_flush = total(sums_.key_by_flush);
    const double correction_error = root(sum_lanes(sums_.correction_error_square));
    const double adjoint_error = root(sum_lanes(sums_.adjoint_error_square)), state_error = root(sum_lanes(sums_.state_error_square));
    const double both_errors = total(sums_.state_times_adjoint_error), flushed = total(sums_.flushed);
    const std::size_t row = head.rows.value_row(token);
    decay_.resize(static_cast<std::size_t>(K_));
    for (std::int64_t i = 0; i < K_; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const auto here = static_cast<std::size_t>(t * K_ + i);
      const double decay = leading(inputs_.row(inputs_.alpha, t)[i]) * (1 + step.alpha_relative) * rounded_up;
      const double decayed = root(sum_lanes(sums_.decayed_square[at])), adjoint = root(sum_lanes(sums_.adjoint_square[at]));
      const double key_radius = key_error + decayed * correction_error + decay * key_by_decay + step.alpha_flush * key_by_flush;
      const double decay_radius = decayed * (adjoint_error + (column_error + decay_error) * (adjoint + adjoint_error)) +
                                  decay * (state_error * adjoint + both_errors) + step.alpha_flush * flushed;
      query_[here] = query_[here] + ball(sums_.query[at], query_error * rounded_up);
      key_[here] = key_[here] + ball(sums_.key[at], key_radius * rounded_up);
      decay_[at] = ball(sums_.decay[at], decay_radius * rounded_up + bound_floor);
      if (dplr) {
        const std::size_t element = row * static_cast<std::size_t>(K_) + at;
        store_ball<A>(truth_[Input_::a], element, ball(sums_.erase[at], total(sums_.erase_error)));
        store_ball<A>(truth_[Input_::b], element, ball(sums_.read[at], total(sums_.read_error)));
      }
    }
    gate(head, token);
    if (!dplr) {
      const ScalarBall strength = ball(sums_.strength, total(sums_.strength_error));
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
    ParameterSums<A>& parameters = parameters_[head.rows.head % group_];
    for (std::int64_t i = 0; i < K_; i += lanes_of<Bound<Input>>) {
      const EnclosedGate<Input> derivative = form == GateForm::log_decay ? EnclosedGate<Input>{} : head.builder.gate(token, i);
      for (int l = 0; l < lanes_of<Bound<Input>> && i + l < K_; ++l) {
        const auto at = static_cast<std::size_t>(i + l);
        if (form == GateForm::log_decay) {
          store_ball<A>(truth_[Input_::g], row + at, decay_[at]);
          continue;
        }
        const ScalarBall by_input = decay_[at] * narrow_lane<Scalar>(derivative.by_input, l);
        store_ball<A>(truth_[Input_::g], row + at, by_input);
        if (!parametric) continue;
        using Sum = typename A::Sum;
        parameters.A_log = parameters.A_log + widen<Sum>(decay_[at] * narrow_lane<Scalar>(derivative.by_A_log, l));
        parameters.dt_bias[at] = parameters.dt_bias[at] + widen<Sum>(by_input);
      }
    }
  }

  /// dq or dk of a token, through the normalisation: with k' = x r, r = 1/sqrt(sum x^2 + 1e-6):  dx = r (dk' - k' (k'.dk')).
  void direction(const Head& head, const std::vector<float>& tensor, std::int64_t t, const ScalarBall* gradient, const Scalar* unit,
                 double unit_error, Enclosed& out) {
    const std::size_t row = head.rows.key_row(t) * static_cast<std::size_t>(K_);
    if (!problem_.options.l2norm) {
      for (std::int64_t i = 0; i < K_; ++i) store_ball<A>(out, row + static_cast<std::size_t>(i), gradient[i]);
      return;
    }
    const ScalarBall inverse = narrow_lane<Scalar>(head.builder.inverse_length(tensor, t), 0);
    ScalarBall along = exact_ball<Scalar>(Bound<Scalar>{});
    for (std::int64_t i = 0; i < K_; ++i) along = along + ScalarBall{unit[i], unit_error} * gradient[i];
    for (std::int64_t i = 0; i < K_; ++i)
      store_ball<A>(out, row + static_cast<std::size_t>(i), inverse * (gradient[i] - ScalarBall{unit[i], unit_error} * along));
  }

  using Input_ = kdacheck::Input;
  const Problem& problem_;
  Sequence sequence_;
  Truth& truth_;
  ParameterSums<A>* parameters_; ///< [group]
  std::int64_t K_, V_, group_, blocks_, distance_;
  ForwardStep<A> forward_;
  AdjointStep<A> adjoint_;
  std::vector<Head> heads_;
  Segment<A> inputs_;
  StateHistory<A> history_;
  TokenSums<A> sums_;
  std::vector<ScalarBall> query_, key_; ///< [segment, K]: of the group
  std::vector<ScalarBall> decay_;       ///< [K]: d ln alpha of a token
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
