#pragma once
// Changed calls that tell where a kernel goes wrong: the same numbers in another form, one head or one sequence alone, one
// chunk from an exact state, memory that held something else before. Each says more than a guess, because the kernel
// itself answers.

#include "localise/localise.hpp"

#include <cstdint>
#include <optional>

namespace kdacheck {

/// One direction of a kernel, called and judged again.
struct Experiment {
  const Kernel& kernel;
  Direction direction;
  Judge& judge;
  /// 1, or how much less than the contract's spread still counts as an error: where a law is sharper than the bound against the oracle.
  /// Then a result that is exact but for its last rounding counts as exact.
  double sharper = 1;

  Run run(const Problem&, const RunOptions& = {}) const;
  Finding judged(const Problem&, const Run&) const;
  /// Does the kernel fail on it? Nothing where it does not take the call.
  std::optional<bool> fails(const Problem&, const RunOptions& = {}) const;
  /// Largest error of a token of o or a row of the final state, in spreads of the contract over `sharper`, or in what the last rounding
  /// may add where that is more; infinite where anything is NaN; forward only.
  double excess(const Problem&, const Run&) const;
};

/// Errors up to so many spreads of the contract are no errors where a stage is looked for.
inline constexpr double noise_in_spreads = 6;

/// o with every element that is exact but for its last rounding made exact.
Run without_last_rounding(const Contract&, const Truth&, Run);

/// `count` tokens from `first` of a sequence, by themselves: from the exact state before them and, with cotangents, against the
/// exact cotangent of the state after them. `head`: that value head alone; nothing: all of them.
Problem chunk_alone(const Problem&, std::int64_t sequence, std::optional<std::int64_t> head, std::int64_t first, std::int64_t count);

/// The same numbers with a gate given as its log decay, strengths as they are, directions normalised: what a kernel that takes all
/// three may be handed instead. `formats` of the result are those of the problem.
Problem with_plain_gate(const Problem&);
Problem with_plain_beta(const Problem&);
Problem with_plain_directions(const Problem&);

bool is_finite(const Run&); ///< all that it holds

/// Right on memory that no call had before, or after a call of the same numbers on the same memory: then something is kept by address.
StageOpinion stage_by_memory(const Experiment&, const Problem&);

/// Around the algorithm: memory as above, the same call again, memory that held zeros before, elements that are not written at all.
StageOpinion stage_by_repetition(const Experiment&, const Problem&, const Run&);

/// Right where tiny keys or decays are larger by a power of two, or wrong in nothing but what is smallest: what is small is taken for zero.
StageOpinion stage_by_size(const Experiment&, const Problem&, const Run&);

/// What a sequence of which nothing was done looks like: o is zero and the state as it began.
StageOpinion stage_by_skipped_tokens(const Experiment&, const Problem&, const Run&, const Place& at);

/// Right where the log decay, the strength or the normalised direction is handed over: then the form is to blame.
StageOpinion stage_by_form(const Experiment&, const Problem&, const Run&);

/// Right where one input is the same in every head, or in every sequence: then that input is read from the wrong one. Right where the
/// others' states, or their cotangents, are zero: then these are. `at`: the head and sequence that go wrong.
StageOpinion stage_by_neighbours(const Experiment&, const Problem&, const Place& at);

/// What is not finite with decay and right without it: exponentials, of one token or of pairs.
StageOpinion stage_by_decay(const Experiment&, const Problem&, const Run&, const Place& at);

/// The first of these that can tell.
StageOpinion stage_by_experiments(const Experiment&, const Problem&, const Run&, const Place& at);

} // namespace kdacheck
