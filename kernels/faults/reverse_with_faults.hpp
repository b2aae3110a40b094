#pragma once
// One chunk of one value head backward, in the notation of chunk_with_faults.hpp: everything a gradient is made of before
// gates, sigmoids and norms. Matrices are row-major; rows are tokens of the chunk.

#include "chunk_with_faults.hpp"

#include <vector>

namespace kdacheck::faults {

struct HeadReverse {
  HeadRun& run;                                        ///< holds what the forward pass of the chunk computed
  Fault fault;                                         ///< none where it does not act
  std::vector<float> start;                            ///< [K,V] state before the chunk
  std::vector<float> dS;                               ///< [K,V] gradient of the state after the chunk; `chunk` moves it before
  std::vector<float> d_o;                              ///< [C,V] cotangents of the outputs
  std::vector<float> dU, dZ, dV;                       ///< [C,V]
  std::vector<float> dAkk, dAqk;                       ///< [C,C]
  std::vector<float> row_query, row_key, column, tail; ///< [C,K] through e^{G_i} of q and k, e^{-G_j} and e^{G_C-G_j} of k
  std::vector<float> dq, dk, dg;                       ///< [C,K]
  std::vector<float> dbeta;                            ///< [C]
  std::vector<float> G_end;                            ///< [K] log decay of the whole chunk, given from outside
  std::vector<float> end_of_heads;                     ///< [K] what the chunk ends of earlier heads added to dg
  std::vector<float> dg_after;                         ///< [K] dg of the token after the chunk, or the running sum after it

  HeadReverse(HeadRun&, Fault);

  /// Whether dg is a running sum over all tokens, which the contract leaves to those who go token by token.
  bool sums_over_tokens() const { return run.contract.order == Order::recurrence && run.contract.decay_gradient == DecayGradient::sums; }

  /// That sum after the last token: rows of the final state times its gradient.
  void start_sums(const std::vector<float>& final_state);

  /// The chunk at `index` of the sequence, `length` tokens.
  void chunk(std::int64_t index, std::int64_t length);

private:
  bool on(Fault which) const { return fault == which; }
  std::size_t at(std::int64_t i, std::int64_t c) const { return run.at(i, c); }
  std::size_t value(std::int64_t i, std::int64_t j) const { return static_cast<std::size_t>(i * run.V + j); }
  float operand(float x) const;
  float score(float x) const;
  float stored(float x) const; ///< a state, or its cotangent, as gradients read it
  float strength(std::int64_t i) const;
  float exponential(float) const;
  float pair_decay(std::int64_t i, std::int64_t j, std::int64_t c, std::int64_t length) const;
  void solve(std::int64_t length);
  void strengths(std::int64_t length, const std::vector<float>& read);
  void score_gradients(std::int64_t length);
  void through_states(std::int64_t index, std::int64_t length);
  void through_scores(std::int64_t length);
  void finish(std::int64_t length);
  void add_pairs(std::int64_t length, std::int64_t c, std::vector<float>& dG) const;
  void hand_over_sum(std::int64_t index, std::int64_t length, float& sum) const;
  void decay_gradient(std::int64_t index, std::int64_t length);
  void carry_back(std::int64_t index, std::int64_t length);

  std::vector<float> d_end, read_;             // dS and the state as operands
  std::vector<float> weighted_;                // [C,V] beta dZ as an operand
  std::vector<float> residual_;                // [C,V] V - kd S
  std::vector<float> state_query_, state_key_; // [C,K] row_query and row_key without pairs
};

} // namespace kdacheck::faults
