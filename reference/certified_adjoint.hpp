#pragma once
// Reverse mode of the token recurrence on columns of the state, with the running bound of its adjoint Lambda = d loss / d S.
//
// KDA, one token backwards (X = Diag(alpha) S_{t-1}, w = v - k^T X, c = beta w):
//   Lambda += scale q do^T      m = k^T Lambda      Y = Lambda - k (beta m)^T      Lambda' = Diag(alpha) Y
//   dq = scale S_t do   dv = beta m   dbeta = m.w   dk = Lambda c - X (beta m)   d ln alpha = sum_j X Y
// DPLR (p = b^T S_{t-1}):
//   m = a^T Lambda   dv = k^T Lambda   dk = Lambda v   da = -Lambda p   db = -S_{t-1} m   d ln alpha = sum_j X Lambda
//   Lambda' = Diag(alpha) Lambda - b m^T
// Transposes have the same norm, so  epsilon_j = ||error of column j of Lambda||  obeys the forward recursion with terms of its own.
//
// A block of columns goes back through a whole segment before the next block does, so that its adjoint stays in the nearest
// cache. Its lanes are added up as soon as a few rows are done: what is kept of a token is one number per channel.

#include "certified_forward.hpp"

#include <array>

namespace kdacheck::certified {

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

/// What the adjoint needs of a run of tokens: one block of columns before (entry t) and after (entry t + 1) each token.
template <class A> struct StateHistory {
  using Column = typename A::Column;
  std::int64_t channels = 0;
  std::vector<Column> state;          ///< [length + 1, K]
  std::vector<ColumnBound<A>> bound;  ///< [length + 1]
  std::vector<TokenResult<A>> result; ///< [length]

  void resize(std::int64_t length, std::int64_t K) {
    channels = K;
    state.resize(static_cast<std::size_t>((length + 1) * K));
    bound.resize(static_cast<std::size_t>(length + 1));
    result.resize(static_cast<std::size_t>(length));
  }
  Column* state_at(std::int64_t t) { return state.data() + t * channels; }
  const Column* state_at(std::int64_t t) const { return state.data() + t * channels; }
  const ColumnBound<A>& bound_at(std::int64_t t) const { return bound[static_cast<std::size_t>(t)]; }
};

/// Columns of Lambda that travel together.
template <class A> struct AdjointColumns {
  using Column = typename A::Column;
  std::vector<Column> adjoint; ///< [K]
  Bound<Column> epsilon{};     ///< ||computed - exact|| of each column
};

/// Rows whose squares are summed up together: the root of the sum bounds each of them, and is about twice the norm of one.
inline constexpr std::int64_t rows_per_square = 4;

/// Sums over the columns of one token. A channel's sum is one lane of an entry; the bounds and d beta wait for their lanes
/// to be added until the token is done.
template <class A> struct TokenSums {
  using Column = typename A::Column;
  using Real = Bound<Column>;
  std::vector<Column> query, key, decay, erase, read; ///< [K in lanes]: dq, dk, d ln alpha, da, db
  std::vector<Real> decayed_square, adjoint_square;   ///< [K / rows_per_square]: sum of X^2 and Y^2, over the columns of each lane
  Column strength{};                                  ///< dbeta
  // bounds, summed over columns
  Real query_error{}, strength_error{}, key_error{}, erase_error{}, read_error{};
  Real key_by_decay{};              ///< times alpha_i: what errors of the state put into dk_i
  Real key_by_flush{};              ///< times alpha_flush
  Real correction_error_square{};   ///< of (beta m), with its share of the summation error
  Real adjoint_error_square{};      ///< y_j^2
  Real state_error_square{};        ///< rho_j^2
  Real state_times_adjoint_error{}; ///< rho_j y_j
  Real flushed{};                   ///< (norm + rho)(norm of Y + y)

  void clear(std::int64_t K, bool dplr) {
    *this = TokenSums{.query = std::move(query),
                      .key = std::move(key),
                      .decay = std::move(decay),
                      .erase = std::move(erase),
                      .read = std::move(read),
                      .decayed_square = std::move(decayed_square),
                      .adjoint_square = std::move(adjoint_square)};
    const auto groups = static_cast<std::size_t>((K + lanes_of<Real> - 1) / lanes_of<Real>);
    for (auto* sums : {&query, &key, &decay}) sums->assign(groups, Column{});
    for (auto* sums : {&erase, &read}) sums->assign(dplr ? groups : 0, Column{});
    for (auto* sums : {&decayed_square, &adjoint_square}) sums->assign(static_cast<std::size_t>(K / rows_per_square), Real{});
  }
};

/// What one token gives per column.
template <class A> struct ValueGradient {
  typename A::Column value{};
  Bound<typename A::Column> radius{};
};

template <class A> class AdjointStep {
  using Scalar = typename A::Scalar;
  using Column = typename A::Column;
  using Real = Bound<Column>;
  using Unit = Rounding<Column>;

public:
  explicit AdjointStep(const Problem& problem)
      : dplr_(problem.options.rule == Rule::dplr), rows_(padded_channels(problem.shape.K)), scale_(problem.options.scale),
        sum_error_(1.01 * (Unit::fused + channel_sum_depth(rows_) * Unit::sum)), column_error_(column_sum_error(problem.shape.V)) {}

  /// Relative error of a sum over V columns: products, at most two of a column added in a lane, then the lanes as a tree, then
  /// one block after the other.
  static double column_sum_error(std::int64_t V) {
    constexpr std::int64_t lanes = lanes_of<Real>;
    return 1.01 * (Unit::product + (1 + 3 + static_cast<double>((V + lanes - 1) / lanes)) * Unit::sum);
  }

  /// One token backwards on one block of columns; value and cotangent are the rows v and do.
  ValueGradient<A> operator()(const Segment<A>& segment, const StateHistory<A>& history, std::int64_t t, const Column& value,
                              const Column& cotangent, AdjointColumns<A>& columns, TokenSums<A>& sums) const {
    return dplr_ ? dplr(segment, history, t, value, cotangent, columns, sums) : kda(segment, history, t, cotangent, columns, sums);
  }

private:
  static Real above(const Column& x) { return absolute(leading(x)) * rounded_up; }

  /// A few rows of products that wait for their lanes to be added.
  using Tile = std::array<Column, rows_per_group>;

  /// Adds the lanes of the rows [begin, end) in a tile to their channels' sums.
  static void add_lanes(Tile& tile, std::int64_t begin, std::int64_t end, std::vector<Column>& sums) {
    constexpr std::int64_t lanes = lanes_of<Real>;
    for (std::int64_t at = begin; at < end; at += lanes) {
      Column* rows = tile.data() + (at - begin);
      if constexpr (lanes > 1) {
        for (std::int64_t l = end - at; l < lanes; ++l) rows[l] = Column{};
        Column& sum = sums[static_cast<std::size_t>(at / lanes)];
        sum = sum + lane_sums(rows);
      } else {
        Column& sum = sums[static_cast<std::size_t>(at)];
        sum = sum + *rows;
      }
    }
  }

  /// Lambda += scale q do^T and dq += S do; returns the column norms of Lambda and what the `readers` (rows of the inputs)
  /// read from it.
  template <std::size_t count> struct Received {
    std::array<Column, count> read{};
    Real square{};
    [[gnu::always_inline]] friend Received operator+(const Received& x, const Received& y) {
      Received sum;
      for (std::size_t i = 0; i < count; ++i) sum.read[i] = x.read[i] + y.read[i];
      sum.square = x.square + y.square;
      return sum;
    }
  };
  template <std::size_t count>
  [[gnu::always_inline]] Received<count> receive(const Segment<A>& segment, const StateHistory<A>& history, std::int64_t t,
                                                 const std::array<const Scalar*, count>& readers, const Column& cotangent,
                                                 AdjointColumns<A>& columns, TokenSums<A>& sums) const {
    const StepBound& step = segment.bound[static_cast<std::size_t>(t)];
    const Scalar* query = segment.row(segment.query, t);
    const Column* after = history.state_at(t + 1);
    const Column scaled = exactly<Column>(broadcast<Real>(scale_)) * cotangent;
    Column* adjoint = columns.adjoint.data();
    Tile of_query;
    Received<count> received = sum_over_rows<Received<count>>(
        rows_,
        [&](std::int64_t i, Received<count> & sum) __attribute__((always_inline)) {
          adjoint[i] = multiply_add(spread<Column>(query[i]), scaled, adjoint[i]);
          of_query[static_cast<std::size_t>(i % rows_per_group)] = after[i] * scaled;
          for (std::size_t r = 0; r < count; ++r) sum.read[r] = multiply_add(spread<Column>(readers[r][i]), adjoint[i], sum.read[r]);
          sum.square = multiply_add(leading(adjoint[i]), leading(adjoint[i]), sum.square);
        },
        [&](std::int64_t begin, std::int64_t end) __attribute__((always_inline)) { add_lanes(of_query, begin, end, sums.query); });
    received.square = column_norm(received.square);
    const Real norm = received.square, sent = above(scaled);
    columns.epsilon =
        (columns.epsilon + 1.01 * ((step.query_norm * (Unit::product + Unit::fused) + step.query_error) * sent + Unit::sum * norm)) *
            rounded_up +
        bound_floor;
    const ColumnBound<A>& state = history.bound_at(t + 1);
    sums.query_error = sums.query_error + (state.rho + (column_error_ + 1.01 * Unit::product) * state.norm) * sent;
    return received;
  }

  ValueGradient<A> kda(const Segment<A>& segment, const StateHistory<A>& history, std::int64_t t, const Column& cotangent,
                       AdjointColumns<A>& columns, TokenSums<A>& sums) const {
    const StepBound& step = segment.bound[static_cast<std::size_t>(t)];
    const Scalar* alpha = segment.row(segment.alpha, t);
    const Scalar* key = segment.row(segment.key, t);
    const Column* before = history.state_at(t);
    const TokenResult<A>& forward = history.result[static_cast<std::size_t>(t)];
    const auto received = receive<1>(segment, history, t, {key}, cotangent, columns, sums);
    const Real adjoint_norm = received.square;
    const Column m = received.read[0];
    const Column beta = spread<Column>(segment.beta[static_cast<std::size_t>(t)]);
    Column* adjoint = columns.adjoint.data();

    const Column written = beta * forward.residual; // c
    const Column erased = beta * m;
    const Column negative = -erased;
    sums.strength = multiply_add(m, forward.residual, sums.strength);

    Tile of_key, of_decay;
    Real through_square{};
    for (std::int64_t begin = 0; begin < rows_; begin += rows_per_group) {
      const std::int64_t end = begin + rows_per_group < rows_ ? begin + rows_per_group : rows_;
      for (std::int64_t four = begin; four < end; four += rows_per_square) {
        Real decayed_square{}, adjoint_square{};
        for (std::int64_t i = four; i < four + rows_per_square; ++i) {
          const auto place = static_cast<std::size_t>(i - begin);
          const Column decay = spread<Column>(alpha[i]);
          const Column decayed = before[i] * decay;
          of_key[place] = multiply_add(decayed, negative, Column(adjoint[i] * written));
          const Column through = multiply_add(spread<Column>(key[i]), negative, adjoint[i]); // Y
          of_decay[place] = decayed * through;
          decayed_square = multiply_add(leading(decayed), leading(decayed), decayed_square);
          adjoint_square = multiply_add(leading(through), leading(through), adjoint_square);
          adjoint[i] = through * decay;
        }
        add_squares(four, decayed_square, adjoint_square, sums);
        through_square = through_square + adjoint_square;
      }
      add_lanes(of_key, begin, end, sums.key);
      add_lanes(of_decay, begin, end, sums.decay);
    }
    const Real through_norm = column_norm(through_square);

    const Real epsilon = columns.epsilon;
    const Real read_error = (sum_error_ * step.key_norm + step.key_error) * adjoint_norm;
    const Real m_error = (step.key_norm * epsilon + 1.01 * read_error) * rounded_up;
    const Real residual_error = forward.residual_error;
    const Real m_size = above(m), residual_size = above(forward.residual), written_size = above(written), erased_size = above(erased);
    const Real written_error =
        (step.beta * residual_error + step.beta_error * residual_size + 1.01 * Unit::product * written_size) * rounded_up + bound_floor;
    const Real erased_local = step.beta * read_error + step.beta_error * (m_size + read_error) + Unit::product * erased_size;
    const Real erased_error = (step.beta * step.key_norm * epsilon + 1.01 * erased_local) * rounded_up + bound_floor;
    const Real through_local =
        step.key_norm * (erased_local + Unit::fused * erased_size) + step.key_error * erased_size + Unit::sum * through_norm;
    const Real through_error = (step.reflection * epsilon + 1.01 * through_local) * rounded_up + bound_floor;

    sums.strength_error = sums.strength_error +
                          (m_error * (residual_size + residual_error) + m_size * residual_error + column_error_ * m_size * residual_size);
    const ColumnBound<A>& state = history.bound_at(t);
    sums.key_error =
        sums.key_error + (epsilon * (written_size + written_error) + adjoint_norm * (written_error + column_error_ * written_size));
    sums.key_by_decay = sums.key_by_decay + state.rho * (erased_size + erased_error);
    sums.key_by_flush = sums.key_by_flush + (state.norm + state.rho) * (erased_size + erased_error);
    const Real erased_share = erased_error + (column_error_ + decay_error(step)) * (erased_size + erased_error);
    sums.correction_error_square = sums.correction_error_square + erased_share * erased_share;
    bound_decay(state, through_norm, through_error, sums);

    const Real local = step.alpha_max * 1.01 * through_local + (decay_error(step) * step.alpha_max + step.alpha_flush) * through_norm;
    columns.epsilon = (step.growth * epsilon + local) * rounded_up + bound_floor;
    return {erased, erased_error};
  }

  ValueGradient<A> dplr(const Segment<A>& segment, const StateHistory<A>& history, std::int64_t t, const Column& value,
                        const Column& cotangent, AdjointColumns<A>& columns, TokenSums<A>& sums) const {
    const StepBound& step = segment.bound[static_cast<std::size_t>(t)];
    const Scalar* alpha = segment.row(segment.alpha, t);
    const Scalar* read_by = segment.row(segment.read, t);
    const Column* before = history.state_at(t);
    const TokenResult<A>& forward = history.result[static_cast<std::size_t>(t)];
    const auto received =
        receive<2>(segment, history, t, {segment.row(segment.erase, t), segment.row(segment.key, t)}, cotangent, columns, sums);
    const Real adjoint_norm = received.square;
    const Column m = received.read[0];
    const Column negative = -m, negative_read = -forward.residual;
    Column* adjoint = columns.adjoint.data();

    Tile of_key, of_erase, of_read, of_decay;
    Real next_square{};
    for (std::int64_t begin = 0; begin < rows_; begin += rows_per_group) {
      const std::int64_t end = begin + rows_per_group < rows_ ? begin + rows_per_group : rows_;
      for (std::int64_t four = begin; four < end; four += rows_per_square) {
        Real decayed_square{}, adjoint_square{};
        for (std::int64_t i = four; i < four + rows_per_square; ++i) {
          const auto place = static_cast<std::size_t>(i - begin);
          const Column decay = spread<Column>(alpha[i]);
          const Column decayed = before[i] * decay;
          of_key[place] = adjoint[i] * value;
          of_erase[place] = adjoint[i] * negative_read;
          of_read[place] = before[i] * negative;
          of_decay[place] = decayed * adjoint[i];
          decayed_square = multiply_add(leading(decayed), leading(decayed), decayed_square);
          adjoint_square = multiply_add(leading(adjoint[i]), leading(adjoint[i]), adjoint_square);
          adjoint[i] = multiply_add(spread<Column>(read_by[i]), negative, Column(adjoint[i] * decay));
          next_square = multiply_add(leading(adjoint[i]), leading(adjoint[i]), next_square);
        }
        add_squares(four, decayed_square, adjoint_square, sums);
      }
      add_lanes(of_key, begin, end, sums.key);
      add_lanes(of_erase, begin, end, sums.erase);
      add_lanes(of_read, begin, end, sums.read);
      add_lanes(of_decay, begin, end, sums.decay);
    }
    const Real next_norm = column_norm(next_square);

    const Real epsilon = columns.epsilon;
    const Real m_local = sum_error_ * step.erase_norm * adjoint_norm;
    const Real m_error = (step.erase_norm * epsilon + 1.01 * m_local) * rounded_up + bound_floor;
    const Real m_size = above(m), read_size = above(forward.residual), value_size = above(value);
    const ColumnBound<A>& state = history.bound_at(t);
    sums.key_error = sums.key_error + (epsilon + column_error_ * adjoint_norm) * value_size;
    sums.erase_error = sums.erase_error + (epsilon * (read_size + forward.residual_error) +
                                           adjoint_norm * (forward.residual_error + column_error_ * read_size));
    sums.read_error = sums.read_error + (state.rho * (m_size + m_error) + state.norm * (m_error + column_error_ * m_size));
    bound_decay(state, adjoint_norm, epsilon, sums);

    const Real local = (decay_error(step) * step.alpha_max + step.alpha_flush) * adjoint_norm +
                       step.read_norm * (m_local + Unit::fused * m_size) + Unit::sum * next_norm;
    columns.epsilon = (step.growth * epsilon + 1.01 * local) * rounded_up + bound_floor;
    const Real value_error =
        (step.key_norm * epsilon + 1.01 * (sum_error_ * step.key_norm + step.key_error) * adjoint_norm) * rounded_up + bound_floor;
    return {received.read[1], value_error};
  }

  static void add_squares(std::int64_t first_row, const Real& decayed_square, const Real& adjoint_square, TokenSums<A>& sums) {
    const auto at = static_cast<std::size_t>(first_row / rows_per_square);
    sums.decayed_square[at] = sums.decayed_square[at] + decayed_square;
    sums.adjoint_square[at] = sums.adjoint_square[at] + adjoint_square;
  }

  /// Relative error of a computed decay times a computed number, without what was flushed.
  static double decay_error(const StepBound& step) { return 1.01 * (Unit::product + step.alpha_relative); }

  static void bound_decay(const ColumnBound<A>& state, const Real& adjoint_norm, const Real& adjoint_error, TokenSums<A>& sums) {
    sums.adjoint_error_square = sums.adjoint_error_square + adjoint_error * adjoint_error;
    sums.state_error_square = sums.state_error_square + state.rho * state.rho;
    sums.state_times_adjoint_error = sums.state_times_adjoint_error + state.rho * adjoint_error;
    sums.flushed = sums.flushed + (state.norm + state.rho) * (adjoint_norm + adjoint_error);
  }

  bool dplr_;
  std::int64_t rows_;
  double scale_;
  double sum_error_;    ///< of a sum over channels, relative to the product of the norms
  double column_error_; ///< of a sum over columns, relative to the sum of sizes
};

} // namespace kdacheck::certified
