#pragma once
// Bound on the error of the gradients of the chunkwise form of KDA that no kernel which keeps its contract can exceed: derived in
// proved_chunk_adjoint.cpp.

#include "../../kernels/contract.hpp"
#include "proved_adjoint.hpp"
#include "proved_chunk.hpp"
#include "proved_starts.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace kdacheck {

/// Walks back through the chunks of a head.
class ChunkAdjoint : ChunkBound {
public:
  ChunkAdjoint(const ProvedUnits& units, const Head& head, double gate_floor, std::int64_t chunk, std::int64_t length,
               const std::vector<Order>& orders, const ChunkStarts& starts)
      : ChunkBound(units, head, gate_floor), orders_(orders), starts_(starts), wy_(std::ranges::count(orders, Order::wy) > 0),
        chunk_(chunk), length_(length), K_(head.K), V_(head.V), flush_(std::max(units.operand.flush, units.score.flush)),
        root_(std::sqrt(static_cast<double>(head.K))) {}

  AdjointBound run(const std::vector<double>& d_o, const std::vector<double>& d_state);

private:
  /// What a stored state or cotangent of this size (errors included) is read wrong by.
  double as_read(double size) const {
    if (!(units_.gradient_state.unit > ProvedUnits::single)) return 0;
    if (!(size <= units_.gradient_state.limit)) return std::numeric_limits<double>::infinity();
    return units_.gradient_state.unit * size + root_ * units_.gradient_state.flush;
  }
  double product_unit(std::int64_t terms) const { return (1 + units_.gamma(terms)) * (1 + units_.operand.unit) - 1; }
  /// What may be lost below the smallest numbers in a sum of products x y, with sum |x| + |y| of such size, and beyond the largest:
  /// |x^ y^ - x y| <= w (|x| + |y|) + w^2 besides what is relative to it, where x^ and y^ err by w.
  double lost(double size) const { return 4 * (flush_ + 2 * 0x1p-126 * static_cast<double>(n_ + K_ + V_)) * (1 + size) + beyond_; }
  /// Infinite where a format cannot hold what this chunk reads.
  double beyond_formats() const;

  void retreat(std::int64_t first, const std::vector<double>& d_o, AdjointBound& out);

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

  /// A sum of products times a decay that is formed apart.
  double decay_slack(double log_error) const;

  /// q and k as rows, k as a column: exact, its error, the sizes of what was added up.
  struct Side {
    BoundMatrix exact, error, size;
    void resize(std::int64_t n, std::int64_t K) {
      for (BoundMatrix* m : {&exact, &error, &size}) m->resize(n, K);
    }
  };

  /// The sides of every token: what comes from the states at both ends, then what the scores add.
  void bound_rows();
  void add_scores();

  /// dq, dk and dg.
  void write_rows(AdjointBound& out);

  /// Lambda and its error before the chunk; d initial_state.
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
  std::vector<double> held_;                                    ///< [n] |k_i| prod_{t>i} n_t
  BoundMatrix d_o_, d_o_size_, lambda_size_;
  std::vector<double> d_o_sum_, U_sum_, W_sum_, dZ_sum_, dU_sum_;                     ///< [n] sums of each row's sizes
  std::vector<double> state_row_sum_, lambda_row_sum_;                                ///< [K]
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
