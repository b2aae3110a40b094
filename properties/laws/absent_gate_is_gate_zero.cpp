// Paths without a gate have lost the delta term, the erase or parts of a gradient.

#include "../perturbed/trial.hpp"

#include <algorithm>

namespace kdacheck::laws {
namespace {

bool offers(const Contract& contract, GateForm form) { return std::ranges::find(contract.gates, form) != contract.gates.end(); }

void law(Trial& trial) {
  trial.applies_if(offers(trial.contract, GateForm::absent), "the kernel always wants a gate");
  trial.applies_if(offers(trial.contract, GateForm::log_decay), "the kernel takes no log decay");
  Problem absent = trial.problem;
  absent.options.gate = GateForm::absent;
  for (Input input : {Input::g, Input::A_log, Input::dt_bias}) absent[input].clear();
  Problem zero = absent;
  zero.options.gate = GateForm::log_decay;
  zero.g.assign(static_cast<std::size_t>(zero.shape.B * zero.shape.T * zero.shape.HV * zero.shape.K), 0.0f);
  const Run expected = trial.forward(zero);
  trial.expect_same_or_true(trial.contract.repeat, absent, expected, trial.forward(absent), "gate absent");
}

} // namespace

Property absent_gate_is_gate_zero() {
  return {.name = "absent-gate-is-gate-zero", .claim = "no gate and a log decay of zero give the same numbers", .check = tried<law>};
}

} // namespace kdacheck::laws
