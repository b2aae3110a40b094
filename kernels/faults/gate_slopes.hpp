#pragma once
// Derivatives of gates, strengths and normalised rows, right or with a fault of the backward pass.

#include "faults.hpp"

#include <cstdint>

namespace kdacheck::faults {

/// What a gradient with respect to the log decay is multiplied by on its way to the gate input (and dt_bias) and to A_log.
struct GateSlopes {
  double input = 1, rate = 0;
};

/// Of one channel: x is the gate input, bias its dt_bias.
GateSlopes gate_slopes(const Options&, double x, double A_log, double bias, Fault);

/// d beta / d x of the tensor that holds x.
float strength_slope(BetaForm, float x, Fault);

/// From the gradient of y = x / sqrt(sum x^2 + 1e-6) to that of x, in place: K channels of a query or a key.
void through_norm(const float* x, float* d, std::int64_t K, bool query, Fault);

} // namespace kdacheck::faults
