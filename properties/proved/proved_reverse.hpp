#pragma once
// What a reverse pass in chunks has of either rule: the cotangent of the state as it goes back, and the arithmetic of what is lost on the
// way. Derived in proved_chunk_adjoint.cpp, 1, 8 and 10.

#include "../../kernels/contract.hpp"
#include "../cases/portable_math.hpp"
#include "proved_adjoint.hpp"
#include "proved_starts.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace kdacheck {

/// `Bound`: ChunkBound or GeneralBound, whose chunks it goes back over. `chunk`: tokens between two states that are rounded to the declared
/// format; `length`: of the chunks of this pass, whatever those that `starts` holds.
template <class Bound> class ReverseChunks : protected Bound {
public:
  ReverseChunks(const ProvedUnits& units, const Head& head, double gate_floor, std::int64_t chunk, std::int64_t length,
                const std::vector<Order>& orders, const ChunkStarts& starts)
      : Bound(units, head, gate_floor), orders_(orders), starts_(starts), wy_(std::ranges::count(orders, Order::wy) > 0), chunk_(chunk),
        length_(length), K_(head.K), V_(head.V), flush_(std::max(units.operand.flush, units.score.flush)),
        root_(std::sqrt(static_cast<double>(head.K))) {}

  /// `d_o` [tokens,V] and `d_state` [K,V] as for bound_adjoint.
  AdjointBound run(const std::vector<double>& d_o, const std::vector<double>& d_state) {
    const std::int64_t T = head_.tokens;
    AdjointBound out;
    for (auto* rows : {&out.q, &out.k, &out.g, &out.q_size, &out.k_size, &out.g_size}) rows->assign(at(T * K_), 0.0);
    if (head_.dplr)
      for (auto* rows : {&out.a, &out.b}) rows->assign(at(T * K_), 0.0);
    for (auto* rows : {&out.v, &out.beta, &out.beta_size}) rows->assign(at(T), 0.0);
    lambda_.resize(K_, V_);
    if (!d_state.empty()) lambda_.data = d_state;
    epsilon_.assign(at(V_), root_ * units_.state.flush);
    for (std::int64_t j = 0; j < V_ && units_.state.unit > f; ++j) // one kept in a coarse format may be rounded before the last token
      epsilon_[at(j)] += units_.state.error(column_norm(lambda_, K_, j));
    out.state.assign(at(K_), *std::max_element(epsilon_.begin(), epsilon_.end()));
    for (std::int64_t first = (T - 1) / length_ * length_; first >= 0 && T > 0; first -= length_) {
      read_chunk(first, d_o);
      retreat(out);
    }
    return out;
  }

protected:
  using Bound::D_, Bound::G_, Bound::L_, Bound::L_error_, Bound::alpha_, Bound::contraction_, Bound::first_, Bound::growth_, Bound::head_,
      Bound::n_, Bound::norm_, Bound::pair_log_, Bound::state_, Bound::state_largest_, Bound::state_size_, Bound::units_, Bound::whole_,
      Bound::whole_slack_;

  static constexpr double f = ProvedUnits::single;

  ~ReverseChunks() = default;

  /// Everything of the chunk at hand, down to carry_back.
  virtual void retreat(AdjointBound& out) = 0;
  /// Whether the rows of the chunk at hand lie within this.
  virtual bool rows_within(double limit) const = 0;

  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

  double product_unit(std::int64_t terms) const { return (1 + units_.gamma(terms)) * (1 + units_.operand.unit) - 1; }
  /// What may be lost below the smallest numbers in a sum of products x y, with sum |x| + |y| of such size, and beyond the largest:
  /// |x^ y^ - x y| <= w (|x| + |y|) + w^2 besides what is relative to it, where x^ and y^ err by w.
  double lost(double size) const { return 4 * (flush_ + 2 * 0x1p-126 * static_cast<double>(n_ + K_ + V_)) * (1 + size) + beyond_; }
  /// A sum of products times a decay that is formed apart.
  double decay_slack(double log_error) const {
    return grown(log_error + portable::log1p(units_.exponential) + 3 * f + 3 * portable::log1p(units_.operand.unit) +
                 portable::log1p(units_.gamma(V_ + 1)) + norm_);
  }

  /// Rows that gradients are made of: exact, its error, the sizes of what was added up.
  struct Side {
    BoundMatrix exact, error, size;
    void resize(std::int64_t n, std::int64_t K) {
      for (BoundMatrix* m : {&exact, &error, &size}) m->resize(n, K);
    }
  };

  /// Lambda and its error before the chunk, d initial_state: of its exact value, what the chunk itself errs by, and the sums [K] over
  /// tokens of what each row of it was multiplied by.
  void carry_back(const BoundMatrix& before, BoundMatrix& local, const std::vector<double>& rows, const std::vector<double>& columns,
                  AdjointBound& out) {
    const Elementary kept = first_ % chunk_ == 0 ? units_.state : Elementary{f, 0x1p-126, largest(Format::fp32)};
    const double of_whole = *std::max_element(whole_slack_.begin(), whole_slack_.end());
    const double passed = contraction_ * (1 + kept.unit) + of_whole * (1 + kept.unit);
    std::vector<double> squares(at(V_), 0.0);
    for (std::int64_t c = 0; c < K_; ++c) {
      double worst = 0;
      for (std::int64_t j = 0; j < V_; ++j) {
        const double e = epsilon_[at(j)], known = local[c][j] + lost(lambda_size_[c][j] + e + rows[at(c)] + columns[at(j)]);
        local[c][j] = sane((known + kept.error(std::abs(before[c][j]) + known)) * ProvedUnits::up);
        worst = std::max(worst, sane((local[c][j] + passed * e) * ProvedUnits::up));
        squares[at(j)] += local[c][j] * local[c][j];
      }
      if (first_ == 0) out.state[at(c)] = worst;
    }
    for (std::int64_t j = 0; j < V_; ++j) epsilon_[at(j)] = sane((passed * epsilon_[at(j)] + std::sqrt(squares[at(j)])) * ProvedUnits::up);
    lambda_ = before;
  }

  const std::vector<Order>& orders_;
  const ChunkStarts& starts_;
  bool wy_;
  std::int64_t chunk_, length_, K_, V_;
  double flush_, root_, beyond_ = 0; ///< beyond_: infinite where a format cannot hold what this chunk reads
  BoundMatrix lambda_;               ///< [K,V] exact cotangent of the state after the chunk
  std::vector<double> epsilon_;      ///< [V]
  // of the chunk at hand
  SolveBound back_;
  std::vector<double> state_error_, lambda_error_, read_error_; ///< [V] as gradients read them; what reading adds to the last
  BoundMatrix d_o_, d_o_size_, lambda_size_;
  std::vector<double> d_o_sum_;                        ///< [n] sums of each row's sizes
  std::vector<double> state_row_sum_, lambda_row_sum_; ///< [K]

private:
  void read_chunk(std::int64_t first, const std::vector<double>& d_o) {
    const auto start = at(first / starts_.step);
    state_ = starts_.state[start];
    this->enter(first, std::min(length_, head_.tokens - first), wy_);
    back_.enter(units_, n_, L_, L_error_, true);
    state_error_ = starts_.error[start], lambda_error_ = epsilon_, read_error_.assign(at(V_), 0.0);
    for (std::int64_t j = 0; j < V_; ++j) {
      state_error_[at(j)] += units_.as_read(column_norm(state_, K_, j) + state_error_[at(j)], root_);
      read_error_[at(j)] = units_.as_read(column_norm(lambda_, K_, j) + epsilon_[at(j)], root_);
      lambda_error_[at(j)] += read_error_[at(j)];
    }
    d_o_.resize(n_, V_);
    if (!d_o.empty()) std::copy_n(d_o.begin() + first_ * V_, n_ * V_, d_o_.data.begin());
    d_o_size_ = sizes(d_o_), lambda_size_ = sizes(lambda_);
    d_o_sum_ = row_sums(d_o_size_, n_), state_row_sum_ = row_sums(state_size_, K_), lambda_row_sum_ = row_sums(lambda_size_, K_);
    beyond_ = fits() ? 0 : std::numeric_limits<double>::infinity();
  }

  bool fits() const {
    const double limit = units_.operand.limit;
    bool within = rows_within(limit);
    for (double x : d_o_size_.data) within = within && x <= limit;
    for (std::int64_t j = 0; j < V_; ++j) {
      double most = 0;
      for (std::int64_t c = 0; c < K_; ++c) most = std::max(most, lambda_size_[c][j]);
      within = within && most + lambda_error_[at(j)] <= limit && state_largest_[at(j)] + state_error_[at(j)] <= limit;
    }
    return within;
  }
};

} // namespace kdacheck
