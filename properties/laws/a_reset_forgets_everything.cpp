// e^-9984 is zero in every format, so the state before it is multiplied by zero and scores across it are zero. Gates are
// left as they are: their chunk-local sums may legally round.

#include "../perturbed/trial.hpp"

#include <algorithm>

namespace kdacheck::laws {
namespace {

constexpr float reset = -9984; // a number of bf16 and fp16 too

void law(Trial& trial) {
  trial.applies_if(trial.contract.g_min <= reset, "g_min leaves no decay that underflows");
  const Problem plain = trial.make(trial.plain());
  trial.applies_if(plain.options.gate == GateForm::log_decay, "the kernel takes no log decay");
  Problem base = chosen(plain, alone(plain, trial.longest(plain)));
  trial.applies_if(base.shape.T >= 2, "a single token has no past");
  const std::int64_t at = 1 + trial.pick(base.shape.T - 1), row = base.shape.HV * base.shape.K;
  std::fill_n(base.g.begin() + at * row, row, reset);
  if (!base.a.empty()) std::fill_n(base.a.begin() + at * row, row, 0.0f); // D - a b^T keeps a b^T

  Problem other = scaled(base, {Input::v, Input::initial_state}, -1);
  other = scaled(std::move(other), {Input::q, Input::k}, 0.5f);
  other = spliced(other, base, at);
  const Choice after = window(base, at, base.shape.T - at);
  trial.expect_same(chosen(base, after), chosen(trial.forward(base), base, after), chosen(trial.forward(other), other, after),
                    "tokens and state before the reset at token " + std::to_string(at) + " changed");
}

} // namespace

Property a_reset_forgets_everything() {
  return {.name = "a-reset-forgets-everything",
          .claim = "after a token whose decay underflows to zero, nothing before it has any influence, bitwise",
          .check = tried<law>};
}

} // namespace kdacheck::laws
