#pragma once
// Bound on the error of the gradients of the chunkwise form of KDA that no kernel which keeps its contract can exceed: derived in
// proved_chunk_adjoint.cpp.

#include "../kernels/contract.hpp"
#include "proved_adjoint.hpp"
#include "proved_chunk.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace kdacheck {

/// |x| of every entry.
inline BoundMatrix sizes(BoundMatrix from) {
  for (double& x : from.data) x = std::abs(x);
  return from;
}

/// Walks forward through the chunks of a head, then back.
class ChunkAdjoint : ChunkBound {
public:
  ChunkAdjoint(const ProvedUnits& units, const Head& head, double gate_floor, std::int64_t chunk, std::int64_t length)
      : ChunkBound(units, head, gate_floor), chunk_(chunk), length_(length), K_(head.K), V_(head.V),
        tiny_(2 * std::max({units.operand.flush, units.score.flush, units.state.flush, units.gradient_state.flush})),
        root_(std::sqrt(static_cast<double>(head.K))) {}

  AdjointBound run(const std::vector<double>& d_o, const std::vector<double>& d_state);

private:
  struct Start {
    std::int64_t first;
    BoundMatrix state;         ///< [K,V]
    std::vector<double> error; ///< [V]
  };

  void keep_states();

  /// What a stored state or cotangent of this size (errors included) is read wrong by.
  double as_read(double size) const {
    return units_.gradient_state.unit > ProvedUnits::single ? units_.gradient_state.unit * size + root_ * units_.gradient_state.flush : 0;
  }
  double product_unit(std::int64_t terms) const { return (1 + units_.gamma(terms)) * (1 + units_.operand.unit) - 1; }
  /// What may be lost below the smallest numbers in a sum of products of such size.
  double lost(double size) const { return 4 * tiny_ * static_cast<double>(n_ + K_ + V_) * (1 + size); }

  void retreat(const Start& start, const std::vector<double>& d_o, AdjointBound& out);

  /// dU and dZ.
  void bound_residual_cotangent();

  double beta(std::int64_t i) const { return head_.beta[static_cast<std::size_t>(first_ + i)]; }
  double beta_error(std::int64_t i) const { return head_.beta_error[static_cast<std::size_t>(first_ + i)]; }

  /// dv, and W = beta dZ; from here on dZ_error_ holds the error of Lambda' too.
  void write_values(AdjointBound& out);

  /// dAqk and dAkk; and dL, which no operand format rounds.
  void bound_score_cotangents();

  /// dL by way of dT: [n,n].
  BoundMatrix error_by_inverse() const;

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

  std::int64_t chunk_, length_, K_, V_;
  double tiny_, root_;
  std::vector<Start> starts_;
  BoundMatrix lambda_;          ///< [K,V] exact cotangent of the state after the chunk
  std::vector<double> epsilon_; ///< [V]
  // of the chunk at hand
  SolveBound back_;
  std::vector<double> state_error_, lambda_error_, read_error_; ///< [V] as gradients read them; what reading adds to the last
  std::vector<double> held_;                                    ///< [n] |k_i| prod_{t>i} n_t
  BoundMatrix d_o_, d_o_size_, lambda_size_;
  BoundMatrix dU_, dU_error_;
  BoundMatrix U_error_, U_size_, dZ_, dZ_error_, W_, W_error_, W_own_error_, W_size_; ///< [n,V]; own: from Lambda'^
  BoundMatrix P_, P_error_, Q_, Q_error_, dL_, dL_error_;                             ///< [n,n] dAqk, dAkk, dL
  Side row_q_, row_k_, column_, end_;
};

/// As bound_adjoint, for chunks of `length` tokens and the order residual_first. `chunk`: tokens between two states, or cotangents, that
/// are rounded to the declared format.
AdjointBound bound_chunk_adjoint(const ProvedUnits&, const Head&, double gate_floor, std::int64_t chunk, std::int64_t length,
                                 const std::vector<double>& d_o, const std::vector<double>& d_state);

} // namespace kdacheck
