#pragma once
// Bound on the error of the chunkwise form of KDA that no kernel which keeps its contract can exceed: derived in
// proved_chunk.cpp.

#include "../budget_head.hpp"
#include "bound_matrix.hpp"
#include "proved_solve.hpp"

#include <cstdint>
#include <vector>

namespace kdacheck {

/// The lengths of chunks that are legal where `chunk` is declared: it and its halvings.
std::vector<std::int64_t> chunk_lengths(std::int64_t chunk, std::int64_t tokens);

/// Walks through one head chunk by chunk: enter() a chunk, bound() it for each order that is legal, leave() it.
class ChunkBound {
public:
  /// `gate_floor`: absolute error of a resolved log decay that the form of the gate allows besides Head::gate_error.
  ChunkBound(const ProvedUnits&, const Head&, double gate_floor);

  /// Everything that does not depend on earlier errors, for tokens first .. first + n - 1.
  void enter(std::int64_t first, std::int64_t n, bool with_wy);

  /// `error` [V] bounds the euclidean norm of each state column's error, at the chunk's start and then at its end; `token`
  /// [n] and `row` [K] receive the largest bound on an element of o and of the state, if larger than what stands there.
  /// `stored`: the state is rounded to its declared format at the end.
  void bound(Order, bool stored, std::vector<double>& error, double* token, double* row);

  void leave();

protected: // ChunkAdjoint goes back over the same chunks
  void read_decay();
  void read_scores();
  void read_state();
  void read_wy();
  void bound_update(Order, const std::vector<double>& error);
  /// What a normalised row's element has besides norm_ (ProvedUnits::small_log), and most that it errs by besides its relative errors.
  double small(double x) const { return head_.normalised ? units_.small_log(x) : 0; }
  double small_flush() const { return head_.normalised && units_.operand.flush > 0x1p-100 ? units_.operand.flush : 0; }

  const ProvedUnits& units_;
  const Head& head_;
  double gate_floor_, norm_;
  std::int64_t first_ = 0, n_ = 0;
  BoundMatrix alpha_, G_, D_;                                     // [n,K]
  BoundMatrix key_, query_, remaining_, key_slack_, query_slack_; // [n,K] kd; qd; kr; their largest errors, products included
  BoundMatrix remaining_size_, remaining_slack_;                  // [n,K] largest |kr|; largest error of kr
  std::vector<double> whole_, whole_slack_;                       // [K]
  std::vector<double> reach_, read_, key_norm_, key_sum_, slack_norm_, query_norm_, query_sum_; // [n]
  std::vector<double> step_;                                                                    // [n] norm of each token's transition
  double contraction_ = 1;                                                                      // of the whole chunk
  BoundMatrix pair_log_;                            // [n,K] largest error of the logarithm of a row's split exponentials
  std::vector<double> growth_;                      // [n] largest factor of a row's split
  BoundMatrix L_, L_error_, scores_, scores_error_; // [n,n]
  BoundMatrix key_scores_, key_scores_error_;       // [n,n] Akk
  SolveBound inverse_;
  BoundMatrix state_, next_, state_size_;               // [K,V] S, S', |S|
  std::vector<double> state_sum_, state_largest_;       // [V]
  BoundMatrix residual_, Z_, U_, Z_slack_, o_slack_;    // [n,V]; residual: V - kd S
  BoundMatrix wy_slack_, wy_norm_, wy_error_, wy_size_; // [n,V], [n,1]
  BoundMatrix erasing_, erasing_error_;                 // [n,K] W = T beta kd; its largest error, that of products included
  BoundMatrix right_size_, right_error_, solution_size_, scratch_, update_error_;
};

} // namespace kdacheck
