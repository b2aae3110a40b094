#pragma once
// What the kernels promise.

#include "../../contract.hpp"

namespace kdacheck::cuda::contracts {

inline const std::vector<GateForm> all_gates{GateForm::log_decay, GateForm::softplus, GateForm::bounded, GateForm::sigmoid,
                                             GateForm::absent};
inline const std::vector<BetaForm> all_betas{BetaForm::value, BetaForm::sigmoid, BetaForm::twice_sigmoid};

/// What all kernels here accept.
inline Contract wide_domain() {
  Contract contract;
  contract.gates = all_gates;
  contract.betas = all_betas;
  contract.l2norm_inside = true;
  contract.beta_min = -1;
  contract.beta_max = 2;
  return contract;
}

inline Contract recurrence_contract(bool v_first) {
  Contract contract = wide_domain();
  contract.order = Order::recurrence;
  contract.chunk = 1;
  contract.rules = {Rule::kda, Rule::dplr};
  contract.K = contract.V = {1, 256, 1};
  contract.k_norm_max = 4;
  contract.state_v_first = v_first;
  return contract;
}

/// Tier accurate has operands in tf32, fp16 and two bf16 terms: 11 bits at least; keys and queries, decayed, have the range of fp16. So it
/// is declared, though states and values, which the kernel takes as tf32, are then bound to that range as well.
inline Contract chunk_contract(Format input, bool accurate) {
  Contract contract = wide_domain();
  contract.input = contract.output = input;
  contract.operands = contract.scores = accurate ? Format::fp16 : Format::bf16;
  if (accurate) contract.value_max = 4096;
  contract.exp_ulp = 4; // 2^-22 relative
  contract.order = Order::residual_first;
  contract.chunk = 16;
  contract.K = contract.V = {16, 256, 16};
  return contract;
}

/// With the backward pass: it sweeps in chunks of 16, and forms the other gradients over segments of 64 tokens. Of the accurate tier it
/// takes up to 128 channels.
inline Contract segment_contract(Format input, bool accurate) {
  Contract contract = chunk_contract(input, accurate);
  contract.chunk = 64;
  if (accurate) contract.K.most = contract.V.most = 128;
  return contract;
}

/// The general rule alone: what it promises of KDA is the other kernels' affair.
inline Contract general_contract(Format input) {
  Contract contract = chunk_contract(input, false);
  contract.K = {64, 128, 64};
  contract.rules = {Rule::dplr};
  return contract;
}

inline Contract decode_contract() {
  Contract contract = recurrence_contract(false);
  contract.rules = {Rule::kda};
  contract.K = {16, 256, 16};
  contract.V = {4, 256, 4};
  contract.T = {1, 8, 1};
  contract.packed = false;
  return contract;
}

} // namespace kdacheck::cuda::contracts
