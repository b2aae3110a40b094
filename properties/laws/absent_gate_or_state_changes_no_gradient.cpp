// A branch without a gate left dk uninitialised and dbeta without one term (flash-linear-attention #862).

#include "../perturbed/trial.hpp"

#include <algorithm>

namespace kdacheck::laws {
namespace {

bool offers(const Contract& contract, GateForm form) { return std::ranges::find(contract.gates, form) != contract.gates.end(); }

void law(Trial& trial) {
  Recipe recipe = trial.recipe;
  recipe.loss = LossPattern::everywhere;
  const Problem problem = trial.make(recipe);

  const bool gate_can_go = offers(trial.contract, GateForm::absent) && offers(trial.contract, GateForm::log_decay);
  Problem absent = problem, zero = problem;
  if (gate_can_go && trial.pick(2) == 0) {
    for (Input input : {Input::g, Input::A_log, Input::dt_bias}) absent[input].clear();
    absent.options.gate = GateForm::absent;
    zero = absent;
    zero.options.gate = GateForm::log_decay;
    zero.g.assign(static_cast<std::size_t>(zero.shape.B * zero.shape.T * zero.shape.HV * zero.shape.K), 0.0f);
  } else {
    trial.applies_if(trial.contract.initial_state, "the kernel takes no initial state");
    const auto [N, HV, K, V] = shape_of(Input::initial_state, zero.shape, sequence_count(zero));
    absent.initial_state.clear();
    zero.initial_state.assign(static_cast<std::size_t>(N * HV * K * V), 0.0f);
  }
  const Run expected = trial.backward(zero);
  trial.expect_same_or_true_gradients(trial.contract.repeat, absent, expected, trial.backward(absent), "a tensor left out, against zeros");
}

} // namespace

Property absent_gate_or_state_changes_no_gradient() {
  return {.name = "absent-gate-or-state-changes-no-gradient",
          .claim = "leaving out the gate or the state gives the other tensors the gradients that zeros give them",
          .direction = Direction::backward,
          .check = tried<law>};
}

} // namespace kdacheck::laws
