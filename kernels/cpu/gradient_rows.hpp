#pragma once
// What every backward pass does around its algebra: sums over the value heads of a group, sums over tokens of the
// gradients to gate parameters, and the way out through scale, l2norm, gate and beta forms.

#include "../kernel.hpp"
#include "arena.hpp"
#include "gate.hpp"

namespace kdacheck::cpu {

/// Gradients to gate parameters before they are summed over sequences, [N,HV] of each.
struct ParameterPartials {
  double *A_log = nullptr, *dt_bias = nullptr; ///< [N,HV], [N,HV,padded K]
};

ParameterPartials take_parameter_partials(Arena&, const Inputs&);

/// The partial sums of one sequence and value head, set to zero.
GateParameterSums clear_sums(const ParameterPartials&, const Inputs&, std::int64_t n, std::int64_t head);

/// Sums over sequences in order and writes d A_log and d dt_bias, where wanted.
void write_parameters(const ParameterPartials&, const Inputs&, const GradientOutputs&);

/// d q and d k of one sequence and q/k head, with respect to what comes out of the l2norm; summed over value heads.
struct SharedGradients {
  float *q = nullptr, *k = nullptr; ///< [length, padded K]
};

SharedGradients take_shared_gradients(Arena&, const Inputs&, std::int64_t longest);

/// Writes them through the l2norm. `row` holds [padded K] numbers of scratch.
void write_shared(const SharedGradients&, const Inputs&, const GradientOutputs&, std::int64_t first_row, std::int64_t shared_head,
                  std::int64_t length, float* row);

/// Writes d g of n tokens from d log decay (overwritten) and adds to the sums. `row` as above.
void write_gate_gradient(const Inputs&, const GradientOutputs&, std::int64_t first_row, std::int64_t head, std::int64_t n, float* d,
                         float* row, const GateParameterSums&);

/// Writes d beta of n tokens through its form; raw are the stored betas.
void write_beta_gradient(const Inputs&, const GradientOutputs&, std::int64_t first_row, std::int64_t head, std::int64_t n, const float* d,
                         const float* raw);

/// Writes rows of a gradient, if it is wanted.
void write_gradient(const GradientOutputs&, Input, const Inputs&, std::int64_t first_row, std::int64_t head, std::int64_t n,
                    const float* rows);

/// Reads n rows of d o; zeros if it is absent.
void read_output_cotangent(const Cotangents&, const Inputs&, std::int64_t first_row, std::int64_t head, std::int64_t n, float* to);

} // namespace kdacheck::cpu
