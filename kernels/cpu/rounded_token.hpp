#pragma once
// One step of the recurrence, forward and back, under a contract whose operands or states are coarser than fp32: every operand of
// every product is rounded once, every state that is kept as well. Plain loops, to be read rather than to be fast.

#include "token.hpp"

namespace kdacheck::cpu {

/// Gradients of one token: rows of padded K, or V where said.
struct TokenAdjoint {
  float *d_o = nullptr, *v = nullptr;                   ///< [V]
  float *from_state = nullptr, *from_adjoint = nullptr; ///< [V] w; m or u
  float *q = nullptr, *k = nullptr, *a = nullptr, *b = nullptr, *g = nullptr;
  float beta = 0;
  float* g_sum = nullptr; ///< running sum of d log decay, where the contract asks for one
};

/// Whether the contract leaves a token anything to round.
bool rounds_tokens(const Contract&);

/// As advance().
void advance_rounded(const Contract&, const Inputs&, const TokenRows&, const float* state, float* next_state);

/// The gradients of a token, from the state before it and the cotangent [K,V] of the one after, which moves to that before.
void retreat_rounded(const Contract&, const Inputs&, const TokenRows&, const float* state, float* adjoint, TokenAdjoint&);

} // namespace kdacheck::cpu
