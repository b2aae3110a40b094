#pragma once
// Bound on the error of the gradients of the general rule in chunks that no kernel which keeps its contract can exceed: derived in
// proved_general_adjoint.cpp.

#include "proved_general.hpp"
#include "proved_reverse.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace kdacheck {

/// Walks back through the chunks of a head of either rule; one of KDA is taken as in GeneralBound.
class GeneralAdjoint final : public ReverseChunks<GeneralBound> {
public:
  using ReverseChunks::ReverseChunks;

private:
  void retreat(AdjointBound& out) override;
  bool rows_within(double limit) const override {
    return std::all_of(value(0), value(n_), [=](double x) { return std::abs(x) <= limit; }) &&
           std::ranges::all_of(sum_, [=](double x) { return x <= limit; });
  }
  const double* value(std::int64_t i) const { return head_.v.data() + (first_ + i) * V_; }

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

  /// q and b as rows, a and k as columns.
  void bound_rows();
  void add_scores();
  void write_rows(AdjointBound& out);
  /// dk and what dbeta has of it, where KDA is taken through the general rule.
  void write_key(std::int64_t i, std::int64_t c, double& strength, double& strength_error, AdjointBound& out);
  /// Lambda before the chunk.
  void send_back(AdjointBound& out);

  // of the chunk at hand
  std::vector<double> held_, held_key_; ///< [n] |a_i|, |k_i| times prod_{t>i} n_t
  BoundMatrix v_, v_size_;
  BoundMatrix w_error_, w_size_, R_error_, dw_, dw_error_, dw_own_error_, dw_size_, Y_, Y_error_, Y_own_error_, Y_size_; ///< [n,V]
  std::vector<double> v_sum_, w_sum_, Y_sum_, dw_sum_;
  Cotangent of_L_, of_M_, of_query_a_, of_query_key_;
  Side row_q_, row_b_, column_a_, column_k_, end_a_, end_k_;
  BoundMatrix erased_size_, erased_own_error_, read_cotangent_, read_cotangent_error_; ///< [n,K] dW; T^T dW = Y S^T
};

/// As bound_chunk_adjoint, for DPLR and for KDA through the general rule.
AdjointBound bound_general_adjoint(const ProvedUnits&, const Head&, double gate_floor, std::int64_t chunk, std::int64_t length,
                                   const std::vector<Order>& orders, const ChunkStarts& starts, const std::vector<double>& d_o,
                                   const std::vector<double>& d_state);

} // namespace kdacheck
