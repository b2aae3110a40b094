#pragma once
// Bound on the error of the chunkwise form of the general rule S_t = (Diag(alpha_t) - a_t b_t^T) S_{t-1} + k_t v_t^T, and of
// KDA evaluated through it: derived in proved_general.cpp.

#include "../budget_head.hpp"
#include "proved_solve.hpp"

#include <cmath>
#include <cstdint>
#include <vector>

namespace kdacheck {

/// As ChunkBound, for a head of either rule; one of KDA is taken with a = beta k, b = alpha k and the key beta k.
class GeneralBound {
public:
  GeneralBound(const ProvedUnits&, const Head&, double gate_floor);

  void enter(std::int64_t first, std::int64_t n, bool with_wy);
  void bound(Order, bool stored, std::vector<double>& error, double* token, double* row);
  void leave();

protected: // GeneralAdjoint goes back over the same chunks
  /// Rows of K numbers with the logarithm of 1 + the largest relative error of each, but for what small() says of it.
  struct Rows {
    BoundMatrix value, error, small;
  };

  void read_rows();
  void read_decay();
  void read_scores();
  void read_state();
  void read_wy();
  void bound_memory(Order, const std::vector<double>& error);
  /// As those of ChunkBound.
  double small(double x) const { return head_.normalised ? units_.small_log(x) : 0; }
  double small_flush() const { return head_.normalised && units_.operand.flush > 0x1p-100 ? units_.operand.flush : 0; }
  /// What a column of a row j, a or k, loses at most where the row is normalised.
  double small_column(std::int64_t j) const {
    return small_flush() * (head_.dplr ? 1 : std::abs(head_.beta[static_cast<std::size_t>(first_ + j)]));
  }

  const ProvedUnits& units_;
  const Head& head_;
  double gate_floor_, norm_;
  std::int64_t first_ = 0, n_ = 0;
  Rows q_, k_, a_, b_;                                                           // [n,K]
  BoundMatrix alpha_, G_, D_, read_key_, read_slack_, query_slack_;              // [n,K]
  BoundMatrix key_remaining_, a_remaining_, key_slack_, a_size_, a_slack_;       // [n,K]
  std::vector<double> whole_, whole_slack_;                                      // [K]
  std::vector<double> reach_, seen_, read_norm_, slack_norm_, query_norm_, sum_; // [n]
  double contraction_ = 1;
  std::vector<double> step_, growth_;    // [n] norm of each token's transition; largest factor of a row's split exponentials
  BoundMatrix query_decayed_, pair_log_; // [n,K] qd; largest error of the logarithm of a row's split exponentials
  double of_columns_ = 0;                // largest error of a and k
  BoundMatrix L_, L_error_, M_, M_error_, query_key_, query_key_error_, query_a_, query_a_error_; // [n,n]
  SolveBound inverse_;
  BoundMatrix state_, next_, state_size_;                                                        // [K,V]
  std::vector<double> state_sum_, state_largest_;                                                // [V]
  BoundMatrix mixed_, mixed_size_, mixed_error_, right_, memory_, slack_, o_slack_, value_size_; // [n,V]
  BoundMatrix wy_slack_, wy_norm_, wy_error_, wy_size_;
  BoundMatrix erasing_, erasing_error_; // [n,K] W = T bd; its largest error, that of products included
  BoundMatrix right_size_, right_error_, solution_size_, memory_error_, scratch_;
};

} // namespace kdacheck
