#pragma once
// The token recurrence on columns of the state, with the running bound  rho_t <= growth_t rho_{t-1} + delta_t.
//
// A computed state satisfies  s'_t = A_t s'_{t-1} + beta_t k_t v_t + r_t  with the exact A_t, so its error obeys
// e_t = A_t e_{t-1} + r_t: errors are carried by A_t itself, never by |A_t|, and in a contraction they only add up.
// delta_t bounds ||r_t|| from what was computed.

#include "segment.hpp"

namespace kdacheck::certified {

/// Sums over K channels run in groups of 16 rows: four partial sums of four, then two levels, then the total. No term
/// passes more additions than this.
inline constexpr std::int64_t rows_per_group = 16;
inline constexpr double channel_sum_depth(std::int64_t K) { return 4 + 2 + static_cast<double>((K + rows_per_group - 1) / rows_per_group); }

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

/// Sum of what `row(i, sum)` adds to its second argument, over the rows of a column; four chains run side by side. K is a
/// multiple of 4. A Sum is a number or a struct of numbers with operator+. After each group of rows comes
/// after_group(begin, end).
template <class Sum> [[gnu::always_inline]] inline Sum sum_over_rows(std::int64_t K, auto row, auto after_group) {
  Sum total{};
  for (std::int64_t begin = 0; begin < K; begin += rows_per_group) {
    Sum first{}, second{}, third{}, fourth{};
    const std::int64_t end = begin + rows_per_group < K ? begin + rows_per_group : K;
    for (std::int64_t i = begin; i < end; i += 4) {
      row(i, first);
      row(i + 1, second);
      row(i + 2, third);
      row(i + 3, fourth);
    }
    total = total + ((first + second) + (third + fourth));
    after_group(begin, end);
  }
  return total;
}
template <class Sum> [[gnu::always_inline]] inline Sum sum_over_rows(std::int64_t K, auto row) {
  return sum_over_rows<Sum>(K, row, [](std::int64_t, std::int64_t) {});
}

/// Two sums over the same rows.
template <class First, class Second> struct TwoSums {
  First first{};
  Second second{};
  [[gnu::always_inline]] friend TwoSums operator+(const TwoSums& x, const TwoSums& y) { return {x.first + y.first, x.second + y.second}; }
};

/// A scalar of the inputs in all lanes of a column.
template <class Column, class Scalar> [[gnu::always_inline]] inline Column spread(const Scalar& x) {
  if constexpr (std::is_same_v<Column, Scalar>)
    return x;
  else if constexpr (requires { x.high; })
    return {broadcast<Pack>(x.high), broadcast<Pack>(x.low)};
  else
    return broadcast<Column>(x);
}

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

public:
  explicit ForwardStep(const Problem& problem)
      : dplr_(problem.options.rule == Rule::dplr), rows_(padded_channels(problem.shape.K)), scale_(problem.options.scale),
        sum_error_(1.01 * (Unit::fused + channel_sum_depth(rows_) * Unit::sum)) {}

  /// One token on these columns: from the state before it [K] to that after it, which may lie in the same place.
  TokenResult<A> operator()(const Segment<A>& segment, std::int64_t t, const Column& value, const Column* before, Column* state,
                            ColumnBound<A>& bound) const {
    return dplr_ ? dplr(segment, t, value, before, state, bound) : kda(segment, t, value, before, state, bound);
  }

private:
  TokenResult<A> kda(const Segment<A>& segment, std::int64_t t, const Column& value, const Column* before, Column* state,
                     ColumnBound<A>& bound) const {
    const Scalar* alpha = segment.row(segment.alpha, t);
    const Scalar* key = segment.row(segment.key, t);
    const StepBound& step = segment.bound[static_cast<std::size_t>(t)];

    const Column read = sum_over_rows<Column>(
        rows_, [&](std::int64_t i, Column & sum) __attribute__((always_inline)) {
          state[i] = before[i] * spread<Column>(alpha[i]);
          sum = multiply_add(spread<Column>(key[i]), state[i], sum);
        });
    TokenResult<A> result;
    result.residual = value - read;
    const Column correction = spread<Column>(segment.beta[static_cast<std::size_t>(t)]) * result.residual;

    const Real square = update_and_read(segment, t, state, correction, result.output);
    const Real norm = column_norm(square);
    const Real written = absolute(leading(correction)) * rounded_up;
    const Real missed = absolute(leading(result.residual)) * rounded_up;
    const Real decayed = smaller(Real(step.alpha_max * bound.norm), Real(norm + step.key_norm * written)) * rounded_up;
    const Real decay_error = (Unit::product + step.alpha_relative) * decayed + step.alpha_flush * bound.norm;
    const Real read_error = (sum_error_ * step.key_norm + step.key_error) * decayed;
    result.residual_error =
        (step.key_norm * (step.alpha_max * bound.rho + 1.01 * decay_error) + 1.01 * read_error + 1.01 * Unit::sum * missed) * rounded_up +
        norm_floor;
    const Real local = step.reflection * decay_error + step.key_norm * step.beta * read_error +
                       step.key_norm * (step.beta * Unit::sum + step.beta_error) * missed +
                       (step.key_norm * (Unit::product + Unit::fused) + step.key_error) * written + Unit::sum * norm;
    finish(step, local, norm, bound, result);
    return result;
  }

  TokenResult<A> dplr(const Segment<A>& segment, std::int64_t t, const Column& value, const Column* before, Column* state,
                      ColumnBound<A>& bound) const {
    const Scalar* alpha = segment.row(segment.alpha, t);
    const Scalar* erase = segment.row(segment.erase, t);
    const Scalar* read_by = segment.row(segment.read, t);
    const StepBound& step = segment.bound[static_cast<std::size_t>(t)];

    const Column read = sum_over_rows<Column>(
        rows_, [&](std::int64_t i, Column & sum)
                   __attribute__((always_inline)) { sum = multiply_add(spread<Column>(read_by[i]), before[i], sum); });
    TokenResult<A> result;
    result.residual = read;
    const Column erased = -read;
    for (std::int64_t i = 0; i < rows_; ++i)
      state[i] = multiply_add(spread<Column>(erase[i]), erased, Column(before[i] * spread<Column>(alpha[i])));

    const Real square = update_and_read(segment, t, state, value, result.output);
    const Real norm = column_norm(square);
    const Real written = absolute(leading(value)) * rounded_up;
    const Real removed = absolute(leading(erased)) * rounded_up;
    const Real decayed = step.alpha_max * bound.norm * rounded_up;
    const Real decay_error = (Unit::product + step.alpha_relative) * decayed + step.alpha_flush * bound.norm;
    const Real read_error = sum_error_ * step.read_norm * bound.norm;
    result.residual_error = (step.read_norm * bound.rho + 1.01 * read_error) * rounded_up + norm_floor;
    const Real before_write = (norm + step.key_norm * written) * rounded_up;
    const Real local = decay_error + step.erase_norm * (read_error + Unit::fused * removed) + Unit::sum * before_write +
                       (step.key_norm * Unit::fused + step.key_error) * written + Unit::sum * norm;
    finish(step, local, norm, bound, result);
    return result;
  }

  /// state += k write; output = q^T state; returns the sum of squares of each column.
  Real update_and_read(const Segment<A>& segment, std::int64_t t, Column* state, const Column& write, Column& output) const {
    const Scalar* key = segment.row(segment.key, t);
    const Scalar* query = segment.row(segment.query, t);
    const auto sums = sum_over_rows<TwoSums<Column, Real>>(
        rows_, [&](std::int64_t i, TwoSums<Column, Real> & sum) __attribute__((always_inline)) {
          state[i] = multiply_add(spread<Column>(key[i]), write, state[i]);
          sum.first = multiply_add(spread<Column>(query[i]), state[i], sum.first);
          sum.second = multiply_add(leading(state[i]), leading(state[i]), sum.second);
        });
    output = exactly<Column>(broadcast<Real>(scale_)) * sums.first;
    return sums.second;
  }

  void finish(const StepBound& step, const Real& local, const Real& norm, ColumnBound<A>& bound, TokenResult<A>& result) const {
    bound.rho = (step.growth * bound.rho + 1.01 * local) * rounded_up + bound_floor;
    bound.norm = norm;
    const double scale = std::fabs(scale_);
    const Real reading = step.query_norm * bound.rho + 1.01 * (step.query_error + sum_error_ * step.query_norm) * norm;
    result.output_radius = (scale * reading + 1.01 * Unit::product * absolute(leading(result.output))) * rounded_up + bound_floor;
  }

  bool dplr_;
  std::int64_t rows_;
  double scale_;
  double sum_error_; ///< of a sum over channels, relative to the product of the norms
};

} // namespace kdacheck::certified
