// The CPU kernels of the suite: one line each.

#include "recurrence.hpp"

namespace kdacheck {
namespace {

/// What all CPU kernels accept and promise.
Contract everywhere() {
  Contract contract;
  contract.gates = {GateForm::log_decay, GateForm::softplus, GateForm::bounded, GateForm::sigmoid, GateForm::absent};
  contract.betas = {BetaForm::value, BetaForm::sigmoid, BetaForm::twice_sigmoid};
  contract.l2norm_inside = true;
  contract.K = contract.V = {1, 256};
  contract.strided = true;
  contract.beta_max = 2;
  return contract;
}

Contract dplr(Contract contract) {
  contract.rules = {Rule::dplr};
  return contract;
}

} // namespace

void append_cpu_kernels(std::vector<Kernel>& list) {
  list.push_back(cpu::recurrence("cpu.recurrence.fp32", "token by token in fp32", everywhere()));
  list.push_back(cpu::recurrence("cpu.dplr.recurrence.fp32", "general DPLR token by token in fp32", dplr(everywhere())));
}

} // namespace kdacheck
