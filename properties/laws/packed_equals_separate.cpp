// Boundaries between packed sequences are where rows, decays and states of the neighbour leak in.

#include "../perturbed/trial.hpp"

namespace kdacheck::laws {
namespace {

// Sequences of the case, each cut at random, between them one of one token and an empty one.
Problem mixed_lengths(Trial& trial) {
  Choice choice = everything(trial.problem);
  const Piece first = choice.pieces[static_cast<std::size_t>(trial.longest(trial.problem))];
  for (Piece& piece : choice.pieces) {
    const auto length = static_cast<std::int64_t>(piece.tokens.size());
    piece.tokens.resize(static_cast<std::size_t>(length - (length > 1 ? trial.pick(length) / 2 : 0)));
  }
  choice.pieces.insert(choice.pieces.begin() + 1, Piece{first.sequence, {}});
  if (!first.tokens.empty()) choice.pieces.push_back({first.sequence, {first.tokens.back()}});
  choice.pieces.push_back(first);
  choice.packed = true;
  return chosen(trial.problem, choice);
}

void law(Trial& trial) {
  trial.applies_if(trial.contract.packed, "the kernel takes no packed sequences");
  const Problem packed = mixed_lengths(trial);
  const Run together = trial.forward(packed);
  if (trial.contract.batch != Sameness::bitwise) return trial.expect_true(packed, together, "packed");
  for (const Sequence& member : sequences(packed)) {
    const Choice only = alone(packed, member.index);
    const Problem single = chosen(packed, only);
    if (!trial.supports(single)) continue;
    trial.expect_same(single, trial.forward(single), chosen(together, packed, only),
                      "sequence " + std::to_string(member.index) + " of the packed call, against the call of its own");
  }
}

} // namespace

Property packed_equals_separate() {
  return {.name = "packed-equals-separate",
          .claim = "every member of a packed call, empty and one-token ones included, gets what it gets alone",
          .check = tried<law>};
}

} // namespace kdacheck::laws
