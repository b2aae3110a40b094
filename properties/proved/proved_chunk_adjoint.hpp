#pragma once
// Bound on the error of the gradients of the chunkwise form of KDA that no kernel which keeps its contract can exceed: derived in
// proved_chunk_adjoint.cpp.

#include "../../kernels/contract.hpp"
#include "proved_chunk.hpp"
#include "proved_reverse.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace kdacheck {

/// Walks back through the chunks of a head.
class ChunkAdjoint final : public ReverseChunks<ChunkBound> {
public:
  using ReverseChunks::ReverseChunks;

private:
  void retreat(AdjointBound& out) override;
  bool rows_within(double limit) const override {
    return std::ranges::all_of(key_sum_, [=](double x) { return x <= limit; }) &&
           std::ranges::all_of(query_sum_, [=](double x) { return x <= limit; });
  }

  /// What U errs by, and beta (V - kd S).
  void bound_updates();

  /// dU and dZ.
  void bound_residual_cotangent();

  double beta(std::int64_t i) const { return head_.beta[static_cast<std::size_t>(first_ + i)]; }
  double beta_error(std::int64_t i) const { return head_.beta_error[static_cast<std::size_t>(first_ + i)]; }

  /// dv, and beta dZ; from here on dZ_error_ holds the error of Lambda' too.
  void write_values(AdjointBound& out);

  /// dAqk and dAkk; and dL, which no operand format rounds.
  void bound_score_cotangents();

  // Of a kernel that has W = T beta kd: proved_chunk_wy.cpp.

  /// dW and T^T dW.
  void bound_erasure();
  /// What dT errs by, besides the errors of dU and S: for rows i and j.
  double error_of_inverse_cotangent(std::int64_t i, std::int64_t j) const;
  /// What beta_i T^T dW, decayed, errs by as a row of dk.
  double error_of_erasing_row(std::int64_t i, std::int64_t c, double decay, double log_error) const;
  /// What dbeta_i errs by, dL_i . Akk_i left out.
  double error_of_strength(std::int64_t i) const;

  /// dbeta.
  void write_strength(AdjointBound& out);

  /// The sides of every token, q and k as rows, k as a column: what comes from the states at both ends, then what the scores add.
  void bound_rows();
  void add_scores();

  /// dq, dk and dg.
  void write_rows(AdjointBound& out);

  /// Lambda before the chunk.
  void send_back(AdjointBound& out);

  // of the chunk at hand
  std::vector<double> held_;                                                          ///< [n] |k_i| prod_{t>i} n_t
  std::vector<double> U_sum_, W_sum_, dZ_sum_, dU_sum_;                               ///< [n] sums of each row's sizes
  BoundMatrix dU_, dU_error_, dU_own_error_, Z_error_;                                ///< [n,V]; own: from Lambda'^
  BoundMatrix U_error_, U_size_, dZ_, dZ_error_, W_, W_error_, W_own_error_, W_size_; ///< [n,V]; W: beta dZ
  BoundMatrix P_, P_error_, Q_, Q_error_, dL_, dL_error_;                             ///< [n,n] dAqk, dAkk, dL
  Side row_q_, row_k_, column_, end_;
  BoundMatrix erased_size_, erased_own_error_, key_cotangent_, key_cotangent_error_; // [n,K] dW; T^T dW
  BoundMatrix scaled_key_error_, scaled_value_error_;                                // [n,K], [n,V] of beta kd and beta V
};

/// As bound_adjoint, for a reverse pass in chunks of `length` tokens, whatever the lengths that `starts` holds; both passes under any of
/// `orders`: residual_first, wy or both. `chunk`: tokens between two states, or cotangents, that are rounded to the declared format.
AdjointBound bound_chunk_adjoint(const ProvedUnits&, const Head&, double gate_floor, std::int64_t chunk, std::int64_t length,
                                 const std::vector<Order>& orders, const ChunkStarts& starts, const std::vector<double>& d_o,
                                 const std::vector<double>& d_state);

} // namespace kdacheck
