#pragma once
// Log decay and beta from what the caller hands over, and the way back of their gradients.

#include "../kernel.hpp"

namespace kdacheck::cpu {

/// Decay below this is 0 in fp32. Log decays are cut off here: it changes no decay, and an in-chunk sum that has passed
/// a reset keeps its digits for the tokens after it.
inline constexpr float least_log_decay = -104.0f;

/// Log decay of one value head: `count` padded rows of the tensor g from row `row`, transformed; zeros if it is absent.
void read_log_decays(const Inputs&, std::int64_t row, std::int64_t head, std::int64_t count, float* to);

/// Sums over tokens of the gradients to a head's gate parameters.
struct GateParameterSums {
  double* A_log = nullptr;   ///< one number
  double* dt_bias = nullptr; ///< padded K numbers
};

/// Turns rows of d log decay into d g in place and adds to the sums. Where the decay is 0 in fp32, nothing flows.
void log_decays_backward(const Inputs&, std::int64_t row, std::int64_t head, std::int64_t count, float* d, float* scratch_row,
                         const GateParameterSums&);

/// beta of one token from the stored value or logit.
float beta_of(BetaForm, float x);

/// d beta / d x at the stored value or logit.
float beta_slope(BetaForm, float x);

/// Reads `count` betas of one value head; raw keeps the stored numbers unless it is null.
void read_betas(const Inputs&, std::int64_t row, std::int64_t head, std::int64_t count, float* to, float* raw);

} // namespace kdacheck::cpu
