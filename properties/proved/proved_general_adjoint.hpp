#pragma once
// Bound on the error of the gradients of the general rule in chunks that no kernel which keeps its contract can exceed: derived in
// proved_general_adjoint.cpp.

#include "proved_adjoint.hpp"
#include "proved_general.hpp"
#include "proved_starts.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace kdacheck {

/// Walks back through the chunks of a head of either rule; one of KDA is taken as in GeneralBound.
class GeneralAdjoint : GeneralBound {
public:
  GeneralAdjoint(const ProvedUnits& units, const Head& head, double gate_floor, std::int64_t chunk, std::int64_t length,
                 const std::vector<Order>& orders, const ChunkStarts& starts)
      : GeneralBound(units, head, gate_floor), orders_(orders), starts_(starts), wy_(std::ranges::count(orders, Order::wy) > 0),
        chunk_(chunk), length_(length), K_(head.K), V_(head.V), flush_(std::max(units.operand.flush, units.score.flush)),
        root_(std::sqrt(static_cast<double>(head.K))) {}

  AdjointBound run(const std::vector<double>& d_o, const std::vector<double>& d_state);

private:
  /// As those of ChunkAdjoint.
  double as_read(double size) const {
    if (!(units_.gradient_state.unit > ProvedUnits::single)) return 0;
    if (!(size <= units_.gradient_state.limit)) return std::numeric_limits<double>::infinity();
    return units_.gradient_state.unit * size + root_ * units_.gradient_state.flush;
  }
  double product_unit(std::int64_t terms) const { return (1 + units_.gamma(terms)) * (1 + units_.operand.unit) - 1; }
  double lost(double size) const { return 4 * (flush_ + 2 * 0x1p-126 * static_cast<double>(n_ + K_ + V_)) * (1 + size) + beyond_; }
  double beyond_formats() const;
  const double* value(std::int64_t i) const { return head_.v.data() + (first_ + i) * V_; }

  void retreat(std::int64_t first, const std::vector<double>& d_o, AdjointBound& out);

  /// What w and R err by.
  void bound_memories();
  /// dw and Y.
  void bound_memory_cotangents();
  void write_values(AdjointBound& out);
  /// dW and T^T dW of order wy, and what dT errs by on top.
  void bound_erasure();
  double error_of_inverse_cotangent(std::int64_t i, std::int64_t j) const;

  /// A cotangent of scores [n,n] and its largest error.
  struct Cotangent {
    BoundMatrix exact, error;
  };
  void bound_score_cotangents();

  /// q and b as rows, a and k as columns: exact, its error, the sizes of what was added up.
  struct Side {
    BoundMatrix exact, error, size;
    void resize(std::int64_t n, std::int64_t K) {
      for (BoundMatrix* m : {&exact, &error, &size}) m->resize(n, K);
    }
  };
  double decay_slack(double log_error) const;
  void bound_rows();
  void add_scores();
  void write_rows(AdjointBound& out);
  /// dk and what dbeta has of it, where KDA is taken through the general rule.
  void write_key(std::int64_t i, std::int64_t c, double& strength, double& strength_error, AdjointBound& out);
  void carry_back(AdjointBound& out);

  const std::vector<Order>& orders_;
  const ChunkStarts& starts_;
  bool wy_;
  std::int64_t chunk_, length_, K_, V_;
  double flush_, root_, beyond_ = 0;
  BoundMatrix lambda_;          ///< [K,V] exact cotangent of the state after the chunk
  std::vector<double> epsilon_; ///< [V]
  // of the chunk at hand
  SolveBound back_;
  std::vector<double> state_error_, lambda_error_, read_error_; ///< [V] as gradients read them; what reading adds to the last
  std::vector<double> held_, held_key_;                         ///< [n] |a_i|, |k_i| times prod_{t>i} n_t
  BoundMatrix d_o_, d_o_size_, lambda_size_, v_, v_size_;
  BoundMatrix w_error_, w_size_, R_error_, dw_, dw_error_, dw_own_error_, dw_size_, Y_, Y_error_, Y_own_error_, Y_size_; ///< [n,V]
  std::vector<double> d_o_sum_, v_sum_, w_sum_, Y_sum_, dw_sum_, state_row_sum_, lambda_row_sum_;
  Cotangent of_L_, of_M_, of_query_a_, of_query_key_;
  Side row_q_, row_b_, column_a_, column_k_, end_a_, end_k_;
  BoundMatrix erased_size_, erased_own_error_, read_cotangent_, read_cotangent_error_; ///< [n,K] dW; T^T dW = Y S^T
};

/// As bound_chunk_adjoint, for DPLR and for KDA through the general rule.
AdjointBound bound_general_adjoint(const ProvedUnits&, const Head&, double gate_floor, std::int64_t chunk, std::int64_t length,
                                   const std::vector<Order>& orders, const ChunkStarts& starts, const std::vector<double>& d_o,
                                   const std::vector<double>& d_state);

} // namespace kdacheck
