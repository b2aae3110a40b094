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

#include "certified_forward.hpp"

namespace kdacheck::certified {

/// What the adjoint needs of a run of tokens: states before (entry t) and after (entry t + 1) each token, all column blocks.
template <class A> struct StateHistory {
  using Column = typename A::Column;
  std::int64_t blocks = 0, channels = 0;
  std::vector<Column> state;            ///< [length + 1, blocks, K]
  std::vector<Bound<Column>> rho, norm; ///< [length + 1, blocks]
  std::vector<TokenResult<A>> result;   ///< [length, blocks]

  void resize(std::int64_t length, std::int64_t block_count, std::int64_t K) {
    blocks = block_count;
    channels = K;
    const auto rows = static_cast<std::size_t>((length + 1) * blocks);
    state.resize(rows * static_cast<std::size_t>(K));
    rho.resize(rows);
    norm.resize(rows);
    result.resize(static_cast<std::size_t>(length * blocks));
  }
  std::size_t at(std::int64_t t, std::int64_t block) const { return static_cast<std::size_t>(t * blocks + block); }
  const Column* state_at(std::int64_t t, std::int64_t block) const {
    return state.data() + at(t, block) * static_cast<std::size_t>(channels);
  }
  void put(std::int64_t t, std::int64_t block, const ColumnState<A>& columns) {
    std::copy(columns.state.begin(), columns.state.end(), state.begin() + static_cast<std::ptrdiff_t>(at(t, block)) * channels);
    rho[at(t, block)] = columns.rho;
    norm[at(t, block)] = columns.norm;
  }
};

/// Columns of Lambda that travel together.
template <class A> struct AdjointColumns {
  using Column = typename A::Column;
  std::vector<Column> adjoint; ///< [K]
  Bound<Column> epsilon{};     ///< ||computed - exact|| of each column
};

/// Sums over the columns of one token, lane by lane; lanes are added when the token is done.
template <class A> struct TokenSums {
  using Column = typename A::Column;
  using Real = Bound<Column>;
  std::vector<Column> query, key, decay, erase, read; ///< [K]: dq, dk, d ln alpha, da, db
  std::vector<Real> decayed_square, adjoint_square;   ///< [K]: sum_j X^2 and Y^2
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
    const auto channels = static_cast<std::size_t>(K);
    for (auto* sums : {&query, &key, &decay}) sums->assign(channels, Column{});
    for (auto* sums : {&erase, &read}) sums->assign(dplr ? channels : 0, Column{});
    for (auto* sums : {&decayed_square, &adjoint_square}) sums->assign(channels, Real{});
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

  /// Relative error of a sum over V columns: two terms a column at most, one lane after the other, then the lanes as a tree.
  static double column_sum_error(std::int64_t V) {
    constexpr std::int64_t lanes = lanes_of<Real>;
    return 1.01 * (Unit::fused + (2.0 * static_cast<double>((V + lanes - 1) / lanes) + 3) * Unit::sum);
  }

  /// One token backwards on one block of columns; value and cotangent are the rows v and do.
  ValueGradient<A> operator()(const Segment<A>& segment, const StateHistory<A>& history, std::int64_t t, std::int64_t block,
                              const Column& value, const Column& cotangent, AdjointColumns<A>& columns, TokenSums<A>& sums) const {
    const Real adjoint_norm = receive(segment, history, t, block, cotangent, columns, sums);
    return dplr_ ? dplr(segment, history, t, block, value, adjoint_norm, columns, sums)
                 : kda(segment, history, t, block, adjoint_norm, columns, sums);
  }

private:
  static Real above(const Column& x) { return absolute(leading(x)) * rounded_up; }

  /// Lambda += scale q do^T and dq += S do; returns the column norms of Lambda.
  Real receive(const Segment<A>& segment, const StateHistory<A>& history, std::int64_t t, std::int64_t block, const Column& cotangent,
               AdjointColumns<A>& columns, TokenSums<A>& sums) const {
    const StepBound& step = segment.bound[static_cast<std::size_t>(t)];
    const Scalar* query = segment.row(segment.query, t);
    const Column* after = history.state_at(t + 1, block);
    const Column scaled = exactly<Column>(broadcast<Real>(scale_)) * cotangent;
    Column* adjoint = columns.adjoint.data();
    Column* query_sum = sums.query.data();
    const Real norm = column_norm(sum_over_rows<Real>(
        rows_, [&](std::int64_t i, Real & square) __attribute__((always_inline)) {
          adjoint[i] = multiply_add(spread<Column>(query[i]), scaled, adjoint[i]);
          query_sum[i] = multiply_add(after[i], scaled, query_sum[i]);
          square = multiply_add(leading(adjoint[i]), leading(adjoint[i]), square);
        }));
    const Real sent = above(scaled);
    columns.epsilon =
        (columns.epsilon + 1.01 * ((step.query_norm * (Unit::product + Unit::fused) + step.query_error) * sent + Unit::sum * norm)) *
            rounded_up +
        bound_floor;
    const std::size_t row = history.at(t + 1, block);
    sums.query_error = sums.query_error + (history.rho[row] + (column_error_ + 1.01 * Unit::product) * history.norm[row]) * sent;
    return norm;
  }

  ValueGradient<A> kda(const Segment<A>& segment, const StateHistory<A>& history, std::int64_t t, std::int64_t block,
                       const Real& adjoint_norm, AdjointColumns<A>& columns, TokenSums<A>& sums) const {
    const StepBound& step = segment.bound[static_cast<std::size_t>(t)];
    const Scalar* alpha = segment.row(segment.alpha, t);
    const Scalar* key = segment.row(segment.key, t);
    const Column* before = history.state_at(t, block);
    const TokenResult<A>& forward = history.result[history.at(t, block)];
    const Column beta = spread<Column>(segment.beta[static_cast<std::size_t>(t)]);
    Column* adjoint = columns.adjoint.data();

    const Column m = sum_over_rows<Column>(
        rows_, [&](std::int64_t i, Column & sum)
                   __attribute__((always_inline)) { sum = multiply_add(spread<Column>(key[i]), adjoint[i], sum); });
    const Column written = beta * forward.residual; // c
    const Column erased = beta * m;
    const Column negative = -erased;
    sums.strength = multiply_add(m, forward.residual, sums.strength);

    Column *key_sum = sums.key.data(), *decay_sum = sums.decay.data();
    Real *decayed_square_sum = sums.decayed_square.data(), *adjoint_square_sum = sums.adjoint_square.data();
    const Real through_norm = column_norm(sum_over_rows<Real>(
        rows_, [&](std::int64_t i, Real & square) __attribute__((always_inline)) {
          const Column decay = spread<Column>(alpha[i]);
          const Column decayed = before[i] * decay;
          key_sum[i] = multiply_add(decayed, negative, multiply_add(adjoint[i], written, key_sum[i]));
          const Column through = multiply_add(spread<Column>(key[i]), negative, adjoint[i]); // Y
          decay_sum[i] = multiply_add(decayed, through, decay_sum[i]);
          decayed_square_sum[i] = multiply_add(leading(decayed), leading(decayed), decayed_square_sum[i]);
          adjoint_square_sum[i] = multiply_add(leading(through), leading(through), adjoint_square_sum[i]);
          square = multiply_add(leading(through), leading(through), square);
          adjoint[i] = through * decay;
        }));

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
    const std::size_t row = history.at(t, block);
    const Real rho = history.rho[row], norm = history.norm[row];
    sums.key_error =
        sums.key_error + (epsilon * (written_size + written_error) + adjoint_norm * (written_error + column_error_ * written_size));
    sums.key_by_decay = sums.key_by_decay + rho * (erased_size + erased_error);
    sums.key_by_flush = sums.key_by_flush + (norm + rho) * (erased_size + erased_error);
    const Real erased_share = erased_error + (column_error_ + decay_error(step)) * (erased_size + erased_error);
    sums.correction_error_square = sums.correction_error_square + erased_share * erased_share;
    bound_decay(rho, norm, through_norm, through_error, sums);

    const Real local = step.alpha_max * 1.01 * through_local + (decay_error(step) * step.alpha_max + step.alpha_flush) * through_norm;
    columns.epsilon = (step.growth * epsilon + local) * rounded_up + bound_floor;
    return {erased, erased_error};
  }

  ValueGradient<A> dplr(const Segment<A>& segment, const StateHistory<A>& history, std::int64_t t, std::int64_t block, const Column& value,
                        const Real& adjoint_norm, AdjointColumns<A>& columns, TokenSums<A>& sums) const {
    const StepBound& step = segment.bound[static_cast<std::size_t>(t)];
    const Scalar* alpha = segment.row(segment.alpha, t);
    const Scalar* key = segment.row(segment.key, t);
    const Scalar* erase = segment.row(segment.erase, t);
    const Scalar* read_by = segment.row(segment.read, t);
    const Column* before = history.state_at(t, block);
    const TokenResult<A>& forward = history.result[history.at(t, block)];
    Column* adjoint = columns.adjoint.data();

    const auto reads = sum_over_rows<TwoSums<Column, Column>>(
        rows_, [&](std::int64_t i, TwoSums<Column, Column> & sum) __attribute__((always_inline)) {
          sum.first = multiply_add(spread<Column>(erase[i]), adjoint[i], sum.first);
          sum.second = multiply_add(spread<Column>(key[i]), adjoint[i], sum.second);
        });
    const Column m = reads.first;
    const Column negative = -m, negative_read = -forward.residual;

    Column *key_sum = sums.key.data(), *erase_sum = sums.erase.data(), *read_sum = sums.read.data(), *decay_sum = sums.decay.data();
    Real *decayed_square_sum = sums.decayed_square.data(), *adjoint_square_sum = sums.adjoint_square.data();
    const Real next_norm = column_norm(sum_over_rows<Real>(
        rows_, [&](std::int64_t i, Real & square) __attribute__((always_inline)) {
          const Column decay = spread<Column>(alpha[i]);
          const Column decayed = before[i] * decay;
          key_sum[i] = multiply_add(adjoint[i], value, key_sum[i]);
          erase_sum[i] = multiply_add(adjoint[i], negative_read, erase_sum[i]);
          read_sum[i] = multiply_add(before[i], negative, read_sum[i]);
          decay_sum[i] = multiply_add(decayed, adjoint[i], decay_sum[i]);
          decayed_square_sum[i] = multiply_add(leading(decayed), leading(decayed), decayed_square_sum[i]);
          adjoint_square_sum[i] = multiply_add(leading(adjoint[i]), leading(adjoint[i]), adjoint_square_sum[i]);
          adjoint[i] = multiply_add(spread<Column>(read_by[i]), negative, Column(adjoint[i] * decay));
          square = multiply_add(leading(adjoint[i]), leading(adjoint[i]), square);
        }));

    const Real epsilon = columns.epsilon;
    const Real m_local = sum_error_ * step.erase_norm * adjoint_norm;
    const Real m_error = (step.erase_norm * epsilon + 1.01 * m_local) * rounded_up + bound_floor;
    const Real m_size = above(m), read_size = above(forward.residual), value_size = above(value);
    const std::size_t row = history.at(t, block);
    const Real rho = history.rho[row], norm = history.norm[row];
    sums.key_error = sums.key_error + (epsilon + column_error_ * adjoint_norm) * value_size;
    sums.erase_error = sums.erase_error + (epsilon * (read_size + forward.residual_error) +
                                           adjoint_norm * (forward.residual_error + column_error_ * read_size));
    sums.read_error = sums.read_error + (rho * (m_size + m_error) + norm * (m_error + column_error_ * m_size));
    bound_decay(rho, norm, adjoint_norm, epsilon, sums);

    const Real local = (decay_error(step) * step.alpha_max + step.alpha_flush) * adjoint_norm +
                       step.read_norm * (m_local + Unit::fused * m_size) + Unit::sum * next_norm;
    columns.epsilon = (step.growth * epsilon + 1.01 * local) * rounded_up + bound_floor;
    const Real value_error =
        (step.key_norm * epsilon + 1.01 * (sum_error_ * step.key_norm + step.key_error) * adjoint_norm) * rounded_up + bound_floor;
    return {reads.second, value_error};
  }

  /// Relative error of a computed decay times a computed number, without what was flushed.
  static double decay_error(const StepBound& step) { return 1.01 * (Unit::product + step.alpha_relative); }

  static void bound_decay(const Real& rho, const Real& norm, const Real& adjoint_norm, const Real& adjoint_error, TokenSums<A>& sums) {
    sums.adjoint_error_square = sums.adjoint_error_square + adjoint_error * adjoint_error;
    sums.state_error_square = sums.state_error_square + rho * rho;
    sums.state_times_adjoint_error = sums.state_times_adjoint_error + rho * adjoint_error;
    sums.flushed = sums.flushed + (norm + rho) * (adjoint_norm + adjoint_error);
  }

  bool dplr_;
  std::int64_t rows_;
  double scale_;
  double sum_error_;    ///< of a sum over channels, relative to the product of the norms
  double column_error_; ///< of a sum over columns, relative to the sum of sizes
};

} // namespace kdacheck::certified
