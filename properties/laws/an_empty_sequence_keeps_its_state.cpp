// Empty members come from real batches; kernels skip them and leave the state unwritten, or hang.

#include "../perturbed/trial.hpp"

#include <cmath>

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  trial.applies_if(trial.contract.packed, "the kernel takes no packed sequences");
  Choice choice = everything(trial.problem);
  const auto empty = static_cast<std::size_t>(trial.pick(static_cast<std::int64_t>(choice.pieces.size()) + 1));
  choice.pieces.insert(choice.pieces.begin() + static_cast<std::ptrdiff_t>(empty), Piece{trial.pick(sequence_count(trial.problem)), {}});
  choice.packed = true;
  const Problem packed = chosen(trial.problem, choice);
  const Run run = trial.forward(packed);
  const std::size_t state = run.final_state.size() / choice.pieces.size();
  for (std::size_t i = empty * state; i < (empty + 1) * state; ++i) {
    const double due = packed.initial_state.empty() ? 0 : packed.initial_state[i];
    // a state that passes through a narrower format may be rounded to it once
    const double allowed = trial.contract.state == Format::fp32 ? 0 : half_ulp(trial.contract.state, due);
    trial.expect_within(std::abs(run.final_state[i] - due), allowed, "final state of the empty sequence",
                        place_of(Output::final_state, packed, trial.contract.chunk, i));
  }
}

} // namespace

Property an_empty_sequence_keeps_its_state() {
  return {.name = "an-empty-sequence-keeps-its-state",
          .claim = "a sequence without tokens ends in the state that it began with",
          .check = tried<law>};
}

} // namespace kdacheck::laws
