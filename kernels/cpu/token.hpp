#pragma once
// One token of one value head, and one step of the recurrence: what both directions of the token-wise kernels share.

#include "../kernel.hpp"
#include "arena.hpp"

namespace kdacheck::cpu {

/// One token of one value head in fp32: rows of padded K or V numbers.
struct TokenRows {
  float *q = nullptr, *k = nullptr; ///< [K], after l2norm; q times scale
  float *a = nullptr, *b = nullptr; ///< [K], DPLR
  float* alpha = nullptr;           ///< [K] decay
  float *v = nullptr, *o = nullptr; ///< [V]; o null: not wanted
  float beta = 0, raw_beta = 0;
  double q_inverse_norm = 1, k_inverse_norm = 1;
};

TokenRows take_token_rows(Arena&, const Inputs&);

/// Reads row b T + t of a value head.
void read_token(const Inputs&, std::int64_t row, std::int64_t head, TokenRows&);

/// S_{t-1} to S_t, which may be the same memory, and o_t.
void advance(const Inputs&, const TokenRows&, const float* state, float* next_state);

} // namespace kdacheck::cpu
