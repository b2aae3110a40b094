// Parameters (A_log, dt_bias) gather from all sequences; every other gradient belongs to one.

#include "../perturbed/trial.hpp"

#include "../perturbed/multiplied.hpp"

namespace kdacheck::laws {
namespace {

void law(Trial& trial) {
  trial.applies_if(trial.contract.packed, "the kernel takes no packed sequences");
  Recipe recipe = trial.recipe;
  recipe.loss = LossPattern::everywhere;
  const Problem made = trial.make(recipe);
  Choice choice = everything(made);
  const Piece first = choice.pieces[static_cast<std::size_t>(trial.longest(made))];
  trial.applies_if(!first.tokens.empty(), "no tokens");
  choice.pieces.insert(choice.pieces.begin() + 1, Piece{first.sequence, {}});
  choice.pieces.push_back({first.sequence, {first.tokens.back()}});
  choice.packed = true;
  const Problem packed = chosen(made, choice);
  const Run together = trial.backward(packed);
  if (trial.contract.batch != Sameness::bitwise) return trial.expect_true_gradients(packed, together, "packed");
  for (const Sequence& member : sequences(packed)) {
    const Choice only = alone(packed, member.index);
    const Problem single = chosen(packed, only);
    if (!trial.supports(single)) continue;
    trial.expect_same(single, without_parameters(trial.backward(single)), without_parameters(chosen(together, packed, only)),
                      "sequence " + std::to_string(member.index) + " of the packed call, against the call of its own");
  }
}

} // namespace

Property packed_gradients_equal_separate_ones() {
  return {.name = "packed-gradients-equal-separate-ones",
          .claim = "every member of a packed call gets the gradients that it gets alone",
          .direction = Direction::backward,
          .check = tried<law>};
}

} // namespace kdacheck::laws
