// Padding is made of such tokens; I - 0 k k^T is the identity whatever k and v are.

#include "../perturbed/trial.hpp"

namespace kdacheck::laws {
namespace {

void make_idle(Problem& problem, const std::vector<std::vector<bool>>& idle) {
  const bool kda = problem.options.rule == Rule::kda;
  for (const Sequence& sequence : sequences(problem))
    for (std::int64_t t = 0; t < sequence.length; ++t) {
      if (!idle[static_cast<std::size_t>(sequence.index)][static_cast<std::size_t>(t)]) continue;
      for (Input input : {Input::g, kda ? Input::beta : Input::a, kda ? Input::beta : Input::v}) {
        const std::int64_t row = row_shape(input, problem.shape).size();
        if (!problem[input].empty()) std::fill_n(problem[input].begin() + (sequence.first + t) * row, row, 0.0f);
      }
    }
}

void law(Trial& trial) {
  const Problem problem = trial.make(trial.plain());
  const std::int64_t length = sequences(problem)[static_cast<std::size_t>(trial.longest(problem))].length;
  trial.applies_if(length >= 1, "no tokens");
  // every sequence gets one idle token somewhere and a run of them elsewhere, copies of the token that stands there
  const std::int64_t one = trial.pick(length), many = trial.pick(length), count = 1 + trial.pick(trial.contract.chunk + 16);
  Choice insert = everything(problem), remove;
  std::vector<std::vector<bool>> idle;
  for (Piece& piece : insert.pieces) {
    std::vector<std::int64_t> tokens, kept;
    std::vector<bool> marks;
    for (const std::int64_t t : piece.tokens) {
      const std::int64_t copies = (t == one ? 1 : 0) + (t == many ? count : 0);
      tokens.insert(tokens.end(), static_cast<std::size_t>(copies + 1), t);
      marks.insert(marks.end(), static_cast<std::size_t>(copies), true);
      kept.push_back(static_cast<std::int64_t>(marks.size()));
      marks.push_back(false);
    }
    remove.pieces.push_back({piece.sequence, kept});
    piece.tokens = tokens;
    idle.push_back(marks);
  }
  Problem longer = chosen(problem, insert);
  make_idle(longer, idle);
  Choice back = everything(longer);
  back.pieces = remove.pieces;
  const Run run = trial.forward(longer);
  trial.expect_true(longer, run, "with idle tokens in between");
  // token by token every operation on an idle one is exact; in chunks the others move, and may legally round otherwise
  if (trial.contract.order == Order::recurrence && trial.contract.state == Format::fp32)
    trial.expect_same_or_true(trial.contract.repeat, problem, trial.forward(problem), chosen(run, longer, back),
                              "the other tokens, without idle ones in between");
}

} // namespace

Property an_idle_token_changes_nothing() {
  return {.name = "an-idle-token-changes-nothing",
          .claim = "tokens with beta 0 and g 0 leave the other outputs and the final state as they are",
          .check = tried<law>};
}

} // namespace kdacheck::laws
