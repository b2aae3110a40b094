#pragma once
// The token recurrence on columns of the state, with the running bound  rho_t <= growth_t rho_{t-1} + delta_t.
//
// A computed state satisfies  s'_t = A_t s'_{t-1} + beta_t k_t v_t + r_t  with the exact A_t, so its error obeys
// e_t = A_t e_{t-1} + r_t: errors are carried by A_t itself, never by |A_t|, and in a contraction they only add up.
// delta_t bounds ||r_t|| from what was computed.

// The pass over a token's rows that writes and reads the state also decays it for the next token and reads it there: one
// load and one store of each entry per token.

#include "channel_sums.hpp"
#include "segment.hpp"

#include <array>

namespace kdacheck::certified {

/// What is known of columns that travel together.
template <class A> struct ColumnBound {
  using Real = Bound<typename A::Column>;
  Real rho{};  ///< ||computed - exact|| of each column
  Real norm{}; ///< upper bound of the computed column's norm
};

/// Columns that travel together.
template <class A> struct ColumnState {
  std::vector<typename A::Column> state; ///< [K], padded
  ColumnBound<A> bound;
};

/// A scalar of the inputs in all lanes of a column.
template <class Column, class Scalar> [[gnu::always_inline]] inline Column spread(const Scalar& x) {
  if constexpr (std::is_same_v<Column, Scalar>)
    return x;
  else if constexpr (requires { x.high; })
    return {broadcast<Bound<Column>>(x.high), broadcast<Bound<Column>>(x.low)};
  else
    return broadcast<Column>(x);
}

/// The norm of a column is a fifth of the work where an entry takes one operation at a time: it is taken from the entries at every
/// eighth token and the last of a segment, and carried between (ForwardStep::carried_norm).
inline constexpr std::int64_t tokens_per_norm = 8;

/// Upper bound of a column norm from the sum of squares of its leading doubles.
template <class Real> inline Real column_norm(const Real& square_sum) { return square_root(square_sum) * rounded_up + norm_floor; }

/// What one token writes besides the state: o for these columns, and what the adjoint needs of it.
template <class A> struct TokenResult {
  using Column = typename A::Column;
  Column output{};                ///< scale q^T S
  Bound<Column> output_radius{};  ///< of output
  Column residual{};              ///< KDA: v - k^T Diag(alpha) S;  DPLR: b^T S
  Bound<Column> residual_error{}; ///< of residual
};

template <class A> class ForwardStep {
  using Scalar = typename A::Scalar;
  using Column = typename A::Column;
  using Real = Bound<Column>;
  using Unit = Rounding<Column>;
  using Errors = ChannelErrors<Column>;
  static constexpr bool norms_are_carried = std::is_same_v<Column, Pack>;

public:
  explicit ForwardStep(const Problem& problem)
      : dplr_(problem.options.rule == Rule::dplr), rows_(padded_channels(problem.shape.K)), scale_(problem.options.scale),
        read_error_(1.01 * Errors::read(rows_)) {}

  /// One token on these columns: from the state before it [K] to that after it, which may lie in the same place.
  TokenResult<A> operator()(const Segment<A>& segment, std::int64_t t, const Column& value, const Column* before, Column* state,
                            ColumnBound<A>& bound) const {
    ColumnBound<A>* const bounds = &bound;
    TokenResult<A> result;
    const auto emit = [&](std::int64_t, std::size_t, const TokenResult<A>& of_token) { result = of_token; };
    const auto run = [&]<bool dplr>() {
      tokens<dplr, 1>(
          segment, t, t + 1, [&](std::int64_t, std::size_t) { return value; }, {before}, {state}, {bounds}, emit);
    };
    dplr_ ? run.template operator()<true>() : run.template operator()<false>();
    return result;
  }

  /// All tokens of a segment on `count` blocks of columns: value(t, block) is a row of v, emit(t, block, result) gets what a
  /// token gave.
  template <std::size_t count>
  void operator()(const Segment<A>& segment, auto value, const std::array<ColumnState<A>*, count>& blocks, auto emit) const {
    std::array<const Column*, count> before;
    std::array<Column*, count> state;
    std::array<ColumnBound<A>*, count> bound;
    for (std::size_t c = 0; c < count; ++c) {
      before[c] = state[c] = blocks[c]->state.data();
      bound[c] = &blocks[c]->bound;
    }
    dplr_ ? tokens<true, count>(segment, 0, segment.length, value, before, state, bound, emit)
          : tokens<false, count>(segment, 0, segment.length, value, before, state, bound, emit);
  }

private:
  /// What the rows of a token give on `count` blocks, over a few rows (Word = Dot<Column>) or all (Word = Column).
  template <class Word, std::size_t count> struct Sums {
    std::array<Word, count> output{};
    std::array<Word, count> read{}; ///< by the next token
    std::array<Real, count> square{};

    [[gnu::always_inline]] friend Sums operator+(const Sums& x, const Sums& y) {
      Sums sum;
      each<count>([&](auto c) __attribute__((always_inline)) {
        sum.output[c] = x.output[c] + y.output[c];
        sum.read[c] = x.read[c] + y.read[c];
        sum.square[c] = x.square[c] + y.square[c];
      });
      return sum;
    }
    [[gnu::always_inline]] friend Sums<Column, count> closed(const Sums& x) {
      Sums<Column, count> result;
      each<count>([&](auto c) __attribute__((always_inline)) {
        result.output[c] = closed(x.output[c]);
        result.read[c] = closed(x.read[c]);
        result.square[c] = x.square[c];
      });
      return result;
    }
  };

  /// The rows of the inputs that one token multiplies by.
  struct Rows {
    const Scalar *alpha, *query, *key, *erase, *read;
    Rows(const Segment<A>& segment, std::int64_t t, bool dplr)
        : alpha(segment.row(segment.alpha, t)), query(segment.row(segment.query, t)), key(segment.row(segment.key, t)),
          erase(dplr ? segment.row(segment.erase, t) : nullptr), read(dplr ? segment.row(segment.read, t) : nullptr) {}
  };

  /// What a token reads of an entry before anything is written, which it leaves decayed (KDA) or alone (DPLR).
  template <bool dplr> [[gnu::always_inline]] static void arrive(const Rows& rows, std::int64_t i, Column& entry, Dot<Column>& read) {
    if constexpr (dplr) {
      read.add(spread<Column>(rows.read[i]), entry);
    } else {
      entry = scaled(entry, spread<Column>(rows.alpha[i]));
      read.add(spread<Column>(rows.key[i]), entry);
    }
  }

  /// Tokens [first, last) on `count` blocks, from the state `before` the first of them.
  template <bool dplr, std::size_t count>
  [[gnu::always_inline]] void tokens(const Segment<A>& segment, std::int64_t first, std::int64_t last, auto value,
                                     const std::array<const Column*, count>& before, const std::array<Column*, count>& state,
                                     const std::array<ColumnBound<A>*, count>& bound, auto emit) const {
    using Chain = Sums<Dot<Column>, count>;
    using Total = Sums<Column, count>;
    if (first == last) return;
    const Rows at_first(segment, first, dplr);
    Total sums = sum_by_chains<Chain, Total>(
        rows_, [&](std::int64_t i, Chain & sum) __attribute__((always_inline)) {
          each<count>([&](auto c) __attribute__((always_inline)) {
            Column entry = before[c][i];
            arrive<dplr>(at_first, i, entry, sum.read[c]);
            state[c][i] = entry;
          });
        });
    for (std::int64_t t = first; t < last; ++t) {
      std::array<Column, count> values, read = sums.read, erased, written;
      each<count>([&](auto c) __attribute__((always_inline)) {
        values[c] = value(t, c);
        if constexpr (dplr) {
          erased[c] = -read[c];
          written[c] = values[c];
        } else {
          read[c] = values[c] - read[c]; // the residual
          written[c] = spread<Column>(segment.beta[static_cast<std::size_t>(t)]) * read[c];
        }
      });
      const Rows now(segment, t, dplr);
      const auto write = [&]<bool measured>(std::int64_t i, auto c, Chain& sum) __attribute__((always_inline)) {
        Column entry = state[c][i];
        if constexpr (dplr) entry = updated(scaled(entry, spread<Column>(now.alpha[i])), spread<Column>(now.erase[i]), erased[c]);
        entry = updated(entry, spread<Column>(now.key[i]), written[c]);
        sum.output[c].add(spread<Column>(now.query[i]), entry);
        if constexpr (measured) sum.square[c] = multiply_add(leading(entry), leading(entry), sum.square[c]);
        return entry;
      };
      const auto pass_on = [&]<bool measured>() __attribute__((always_inline)) {
        const Rows next(segment, t + 1, dplr);
        sums = sum_by_chains<Chain, Total>(
            rows_, [&](std::int64_t i, Chain & sum) __attribute__((always_inline)) {
              each<count>([&](auto c) __attribute__((always_inline)) {
                Column entry = write.template operator()<measured>(i, c, sum);
                arrive<dplr>(next, i, entry, sum.read[c]);
                state[c][i] = entry;
              });
            });
      };
      const std::array<Column, count> arrived = sums.read;
      bool measured = true;
      if (t + 1 == last) {
        sums = sum_by_chains<Chain, Total>(
            rows_, [&](std::int64_t i, Chain & sum) __attribute__((always_inline)) {
              each<count>([&](auto c) __attribute__((always_inline)) { state[c][i] = write.template operator()<true>(i, c, sum); });
            });
      } else if constexpr (dplr || !norms_are_carried) {
        pass_on.template operator()<true>();
      } else {
        measured = (t - first) % tokens_per_norm == tokens_per_norm - 1;
        measured ? pass_on.template operator()<true>() : pass_on.template operator()<false>();
      }
      const StepBound& step = segment.bound[static_cast<std::size_t>(t)];
      each<count>([&](auto c) {
        TokenResult<A> result;
        result.output = exactly<Column>(broadcast<Real>(scale_)) * sums.output[c];
        result.residual = read[c];
        const Real norm =
            measured ? column_norm(sums.square[c]) : carried_norm(step, leading(arrived[c]), leading(written[c]), bound[c]->norm);
        const Real local =
            dplr ? dplr_error(step, values[c], norm, *bound[c], result) : kda_error(step, written[c], norm, *bound[c], result);
        finish(step, local, norm, *bound[c], result);
        emit(t, c, result);
      });
    }
  }

  /// The norm of a written column without a pass over it (KDA). With x the decayed column as computed, ||x|| <= X, and y = x + w k
  /// without rounding,  ||y||^2 = ||x||^2 + 2 w k.x + w^2 ||k||^2;  k.x was read, wrong by read_error_ ||k|| X; the last term covers the
  /// rounding of this line, ten operations on numbers below 3 (X^2 + w^2 ||k||^2). X takes the largest decay for all channels, as rho does
  /// too: where channels decay alike radii hardly change, where all but one of 16 are erased at once they are 5 times as wide until the
  /// norm is measured again (tests/certified_cases.cpp).
  Real carried_norm(const StepBound& step, const Real& read, const Real& written, const Real& before) const {
    const Real decayed = ((1 + Errors::scaled()) * step.alpha_max) * before * rounded_up;
    const Real size = absolute(written) * rounded_up, key = size * step.key_norm * rounded_up;
    const Real cross = 2 * written * read + 2 * read_error_ * key * decayed, ends = decayed * decayed + key * key;
    const Real square = ends + cross;
    const Real sum = square_root(Real(choose(square < Real{}, Real{}, square) + 0x1p-44 * ends)) * rounded_up + norm_floor;
    return (sum + Errors::written() * key) * ((1 + 2 * Errors::added()) * rounded_up) + norm_floor;
  }

  /// What additions of an update to a state of that norm may be wrong by.
  static Real added_error(const Real& result, const Real& state, const Real& written) {
    return Errors::added() * (Errors::of_the_sum ? result : Real(state + written));
  }

  /// New rounding errors of a token, and the error of its residual.
  Real kda_error(const StepBound& step, const Column& correction, const Real& norm, const ColumnBound<A>& bound,
                 TokenResult<A>& result) const {
    const Real written = absolute(leading(correction)) * rounded_up;
    const Real missed = absolute(leading(result.residual)) * rounded_up;
    const Real decayed = smaller(Real(step.alpha_max * bound.norm), Real(norm + step.key_norm * written)) * rounded_up;
    const Real decay_error = (Errors::scaled() + step.alpha_relative) * decayed + step.alpha_flush * bound.norm;
    const Real read_error = (read_error_ * step.key_norm + step.key_error) * decayed;
    result.residual_error =
        (step.key_norm * (step.alpha_max * bound.rho + 1.01 * decay_error) + 1.01 * read_error + 1.01 * Unit::sum * missed) * rounded_up +
        norm_floor;
    return step.reflection * decay_error + step.key_norm * step.beta * read_error +
           step.key_norm * (step.beta * Unit::sum + step.beta_error) * missed +
           (step.key_norm * (Unit::product + Errors::written()) + step.key_error) * written +
           added_error(norm, decayed, Real(step.key_norm * written));
  }

  Real dplr_error(const StepBound& step, const Column& value, const Real& norm, const ColumnBound<A>& bound, TokenResult<A>& result) const {
    const Real written = absolute(leading(value)) * rounded_up;
    const Real removed = absolute(leading(result.residual)) * rounded_up;
    const Real decayed = step.alpha_max * bound.norm * rounded_up;
    const Real decay_error = (Errors::scaled() + step.alpha_relative) * decayed + step.alpha_flush * bound.norm;
    const Real read_error = read_error_ * step.read_norm * bound.norm;
    result.residual_error = (step.read_norm * bound.rho + 1.01 * read_error) * rounded_up + norm_floor;
    const Real before_write = (norm + step.key_norm * written) * rounded_up;
    return decay_error + step.erase_norm * (read_error + Errors::written() * removed) +
           added_error(before_write, decayed, Real(step.erase_norm * removed)) +
           (step.key_norm * Errors::written() + step.key_error) * written + added_error(norm, before_write, Real(step.key_norm * written));
  }

  void finish(const StepBound& step, const Real& local, const Real& norm, ColumnBound<A>& bound, TokenResult<A>& result) const {
    bound.rho = (step.growth * bound.rho + 1.01 * local) * rounded_up + bound_floor;
    bound.norm = norm;
    const double scale = std::fabs(scale_);
    const Real reading = step.query_norm * bound.rho + 1.01 * (step.query_error + read_error_ * step.query_norm) * norm;
    result.output_radius = (scale * reading + 1.01 * Unit::product * absolute(leading(result.output))) * rounded_up + bound_floor;
  }

  bool dplr_;
  std::int64_t rows_;
  double scale_;
  double read_error_; ///< of a sum over channels, relative to the product of the norms
};

} // namespace kdacheck::certified
