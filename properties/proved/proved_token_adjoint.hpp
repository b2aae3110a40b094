#pragma once
// Walks a head forward and back token by token, with what its gradients err by: derived in proved_adjoint.cpp.

#include "../cases/portable_math.hpp"
#include "proved_adjoint.hpp"
#include "proved_recurrence.hpp"
#include "proved_solve.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <vector>

namespace kdacheck {

class TokenAdjoint {
public:
  /// `kda`: the head of which `head` is the form as the general rule.
  TokenAdjoint(const ProvedUnits& units, const Head& head, double gate_floor, std::int64_t interval, const Head* kda = nullptr)
      : units_(units), head_(head), kda_(kda), gate_floor_(gate_floor), interval_(interval), K_(head.K), V_(head.V),
        operand_((1 + units.operand.unit) * (1 + units.operand.unit)),
        of_norm_(head.normalised ? (1 + units.norm(head.K)) * (1 + units.operand.unit) - 1 : 0), theta_(of_norm_),
        over_K_((1 + units.gamma(head.K + 1)) * operand_ * (1 + theta_) - 1), over_V_((1 + units.gamma(2 * head.V)) * operand_ - 1),
        added_(units.gamma(3)), root_(std::sqrt(static_cast<double>(head.K))), flush_(units.operand.flush) {}

  AdjointBound run(const std::vector<double>& d_o, const std::vector<double>& d_state, const std::vector<double>* states);

private:
  static constexpr double u = ProvedUnits::single;
  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }
  /// Largest relative error of a row's element; theta_ is that of rows.
  double of_element(double x) const { return with_row(of_norm_, head_.normalised ? units_.small_part(x) : 0); }
  static double square(double x) { return x * x; }
  /// A relative error, and that of a row on top.
  static double with_row(double unit, double of_row) { return of_row > 0 ? (1 + unit) * (1 + of_row) - 1 : unit; }
  bool coarse_state() const { return units_.state.unit > u; }
  double kept_unit() const { return std::max(u, units_.state.unit); }
  double column_norm(const std::vector<double>& matrix, std::int64_t j) const {
    double sum = 0;
    for (std::int64_t c = 0; c < K_; ++c) sum += square(matrix[at(c * V_ + j)]);
    return std::sqrt(sum);
  }

  /// S_{t-1} to S_t, exact.
  void advance(std::int64_t t, std::vector<double>& S);

  void keep_states(const std::vector<double>* states);

  /// S_{t-1} and S_t: of a segment at a time, from the state that was kept at its start.
  void find_states(std::int64_t t);

  double as_read(double size) const { return units_.as_read(size, root_); }

  void retreat(std::int64_t t, const std::vector<double>& d_o, AdjointBound& out);

  bool small_numbers() const {
    const auto half = [](const Elementary& format) { return format.flush > 0x1p-100; };
    return half(units_.operand) || half(units_.state) || half(units_.gradient_state);
  }

  /// What fp16's subnormals take from sums of products at this token, and everything where its largest number may be exceeded. Rows are
  /// taken at the norms of columns: a little more than they are, of what is little.
  void lose_small(std::int64_t t, const std::vector<double>& d_o, const std::vector<double>& after, AdjointBound& out);

  /// The running sum of dg, channel by channel: errors of its terms so far, and their sizes.
  void start_sums();
  /// A gradient of this size (its error included) times an element of the row that it belongs to, which errs by `theta` of itself. Once it
  /// is known what fp16's subnormals take, finish_sums adds it: before the dg of its token is read, or after that.
  struct Term {
    std::int64_t channel;
    double factor, error, size, theta;
    bool after;
  };
  void add_to_sum(const Term& term) {
    const auto& [c, factor, error, size, theta, after] = term;
    sum_error_[at(c)] += std::abs(factor) * ((1 + theta) * (error + lost_) + (theta + 3.1 * u) * (size + lost_)) + flushed(size);
    sum_size_[at(c)] += std::abs(factor) * (1 + theta + 3.1 * u) * (size + lost_);
  }
  void finish_sums(std::int64_t t, AdjointBound& out);
  double of_running_sum(std::int64_t c, std::int64_t t) const { // at most five terms of each token, added up in any order
    return sum_error_[at(c)] + units_.gamma(5 * (head_.tokens - t) + 1) * sum_size_[at(c)];
  }

  void read_token(std::int64_t t);

  /// What a, b and the key err by, relative to their norms, where they are products.
  void read_row_errors(std::int64_t t);

  /// dq, and Lambda += q do^T.
  void receive(std::int64_t t, const std::vector<double>& d_o, const std::vector<double>& after, AdjointBound& out);

  /// Of a sum over V whose terms are as large as this in all.
  double flushed(double size) const { return 4 * flush_ * (static_cast<double>(V_) * (1 + size) + 4); }

  void count_inner(std::initializer_list<double> sizes) {
    for (double x : sizes) inner_sum_ += x, inner_largest_ = std::max(inner_largest_, sane(x));
  }

  void retreat_kda(std::int64_t t, const std::vector<double>& before, AdjointBound& out);

  void retreat_general(std::int64_t t, const std::vector<double>& before, AdjointBound& out);

  const ProvedUnits& units_;
  const Head& head_;
  const Head* kda_;
  double gate_floor_;
  std::int64_t interval_, K_, V_;
  double operand_, of_norm_, theta_, over_K_, over_V_, added_, root_, flush_;
  std::vector<double> rho_;                        ///< [tokens + 1,V]
  std::vector<std::vector<double>> kept_, states_; ///< [K,V] each
  std::int64_t first_ = 0;
  std::vector<double> adjoint_, epsilon_; ///< [K,V] exact; [V]
  // of the token at hand
  std::vector<double> alpha_, decay_error_;                        ///< [K]
  std::vector<double> size_, old_, decayed_, of_decay_;            ///< [V] norms
  std::vector<double> lambda_error_, state_error_, decayed_error_; ///< [V]
  double largest_alpha_ = 0, largest_error_ = 0, key_norm_ = 0, query_norm_ = 0, a_norm_ = 0, b_norm_ = 0;
  double step_norm_ = 0, reflection_ = 1;
  double inner_sum_ = 0, inner_largest_ = 0; ///< of w, m and Y, or p and m, their errors included
  double of_a_ = 0, of_b_ = 0;               ///< of KDA as the general rule: of a and the key, of b
  std::vector<double> b_error_, of_alpha_;   ///< [K]
  double lost_ = 0;                          ///< to fp16's subnormals, of any gradient
  std::vector<Term> terms_;
  std::vector<double> own_error_, own_size_; ///< [K] of KDA as the general rule: of alpha's share of dg, of dg
  std::vector<double> sum_error_, sum_size_; ///< [K]
};

} // namespace kdacheck
