#pragma once
// Where does a failing kernel go wrong? The first wrong place, and the stage of the chunk algorithm whose error would
// explain what was written. Three ways, independent of each other, each with a confidence and free to say that it cannot
// tell: by changed calls of the kernel itself, by the intermediates of the exact chunk, forward or in reverse, and by the planted
// fault that reproduces the error best.

#include "../judge.hpp"
#include "../property.hpp"
#include "stage_opinion.hpp"

#include <optional>
#include <string>

namespace kdacheck {

struct Localisation {
  StageOpinion by_experiments, by_intermediates, by_faults;
  StageOpinion together; ///< of them the one to believe; no stage where they contradict each other
  /// Of a law that makes several calls: which of them goes wrong by itself, or empty.
  std::string about = {};
  /// First token (then sequence, head) of o, or state row, at which an error is refused; of gradients the last token, where a
  /// pass that goes back begins to go wrong.
  std::optional<Place> first_wrong;
};

/// "stage inverse (confidence 0.93; by intermediates: inverse 0.80, ...; by faults: ...); first wrong at ..."
std::string to_text(const Localisation&);

/// Localises a failure of the law on a recipe that is fitted to the kernel. Tries the law again and takes the first of its calls that is
/// wrong by itself, a decode step as well as any other; where none is, what the law compared says what it can. For the fit every planted
/// fault of the call's direction but `left_out` runs under the kernel's contract.
Localisation localise(const Kernel&, const Property&, const Recipe&, Judge&, Fault left_out = Fault::none);

/// The first place at which the judge refuses what the run holds of o and the final state, everything later being exact;
/// nothing if the whole run passes.
std::optional<Place> first_wrong(const Contract&, const Problem&, const Run&, Judge&);

/// The same for gradients, which the pass forms from the last token to the first; nothing if no token's are refused by themselves.
std::optional<Place> first_wrong_gradient(const Contract&, const Problem&, const Run&, Judge&);

struct Experiment;
struct SeenChunk;

/// By the exact chunk in which the first error lies (localise/seen_chunk.hpp): which of its intermediates must have been another for o
/// and the state to become what they are?
StageOpinion stage_by_intermediates(const Experiment&, const Problem&, const Run&, const Place& first_wrong,
                                    const std::optional<SeenChunk>&);

/// By the exact reverse of the chunk in which the first wrong gradient lies, as that one.
/// `seen` receives the chunk where it is right by itself and wrong within a call.
StageOpinion stage_by_gradients(const Experiment&, const Problem&, const Run&, const Place& first_wrong, std::optional<SeenChunk>& seen);

/// By the distance of the kernel's errors from those of every planted fault, in units of what the contract allows.
/// `sharper`: as Experiment::sharper.
StageOpinion stage_by_faults(const Kernel&, Direction, const Problem&, const Run&, Judge&, Fault left_out = Fault::none,
                             double sharper = 1);

} // namespace kdacheck
