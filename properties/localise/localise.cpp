#include "localise.hpp"

#include "../../kernels/plugin/broken_law.hpp"
#include "../transform.hpp"
#include "calls_of_law.hpp"
#include "seen_chunk.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace kdacheck {
namespace {

std::string spoken(const StageOpinion& opinion) {
  return (opinion.stage ? fmt::format("{} {:.2f}", name(*opinion.stage), opinion.confidence) : std::string("unclear")) +
         (opinion.grounds.empty() ? "" : ": " + opinion.grounds);
}

/// Agreement counts for more than either alone; a contradiction is settled only if one is much surer.
StageOpinion together(const StageOpinion& one, const StageOpinion& other) {
  constexpr double much_surer = 0.3; // a choice; what it achieves is measured by tests/localise.cpp
  if (!one.stage && !other.stage) return unclear("neither way can tell");
  if (!one.stage) return other;
  if (!other.stage) return one;
  if (one.stage == other.stage) return says(*one.stage, 1 - (1 - one.confidence) * (1 - other.confidence), "both ways agree");
  if (one.confidence >= other.confidence + much_surer) return one;
  if (other.confidence >= one.confidence + much_surer) return other;
  return unclear("the two ways contradict each other");
}

} // namespace

std::string to_text(const Localisation& found) {
  const bool tried =
      found.by_intermediates.stage || found.by_faults.stage || !found.by_intermediates.grounds.empty() || !found.by_faults.grounds.empty();
  std::string text = found.together.stage
                         ? fmt::format("stage {} (confidence {:.2f})", name(*found.together.stage), found.together.confidence)
                         : "stage unclear (" + found.together.grounds + ")";
  if (found.together.stage && !tried) text += ": " + found.together.grounds;
  if (!found.about.empty()) text += "; " + found.about;
  if (found.by_experiments.stage) text += "; by experiments " + spoken(found.by_experiments);
  if (tried) text += "; by intermediates " + spoken(found.by_intermediates) + "; by planted faults " + spoken(found.by_faults);
  if (found.first_wrong) text += "; first wrong at " + to_text(*found.first_wrong);
  return text;
}

namespace {

/// Numbers that the oracle goes through, about.
double size_of(const Problem& problem) {
  const Shape& s = problem.shape;
  return static_cast<double>(s.B * s.T * s.HV) * static_cast<double>(s.K * s.V + 256);
}

/// Above this every changed call takes a tenth of a second and more to judge.
constexpr double large = 6e6;

/// Fewer sequences, tokens, heads and value channels around the wrong place, as long as the kernel still goes wrong.
std::optional<Problem> smaller_and_wrong(const Experiment& with, const Problem& whole, const Place& at) {
  std::optional<Problem> result;
  std::int64_t sequence = std::max<std::int64_t>(at.sequence, 0), head = std::max<std::int64_t>(at.head, 0);
  const bool of_key_head = at.tensor == "dq" || at.tensor == "dk";
  const auto smaller = [&](const Choice& choice) {
    const Problem& from = result ? *result : whole;
    Problem fewer = with_cotangents_in(chosen(from, choice), with.kernel.contract.output);
    if (size_of(fewer) > 0.8 * size_of(from) || !with.fails(fewer).value_or(false)) return false;
    result = std::move(fewer);
    return true;
  };
  const auto now = [&]() -> const Problem& { return result ? *result : whole; };
  if (const std::int64_t members = sequence_count(whole); members > 1 && !smaller(alone(whole, sequence))) {
    Choice three = everything(whole);
    const std::int64_t first = std::max<std::int64_t>(sequence - 1, 0), last = std::min(sequence + 2, members);
    three.pieces.assign(three.pieces.begin() + first, three.pieces.begin() + last);
    if (smaller(three)) sequence -= first;
  } else if (members > 1) {
    sequence = 0;
  }
  const std::int64_t C = std::max<std::int64_t>(with.kernel.contract.chunk, 16);
  if (at.token >= 0 && with.direction == Direction::forward) smaller(prefix(now(), (at.token / C + 1) * C));
  if (const std::int64_t group = whole.shape.HV / whole.shape.H; whole.shape.H > 1) {
    Choice one = everything(now());
    const std::int64_t key_head = of_key_head ? head : head / group;
    one.key_heads = {key_head}, one.value_heads = counted(group, key_head * group);
    smaller(one);
  }
  constexpr std::int64_t few = 16;
  if (whole.shape.V > few) {
    Choice narrow = everything(now());
    const bool of_values = at.tensor == "o" || at.tensor == "final_state" || at.tensor == "dv" || at.tensor == "dinitial_state";
    const std::int64_t first = of_values ? std::clamp<std::int64_t>(at.channel - few / 2, 0, whole.shape.V - few) : 0;
    narrow.value_channels = counted(few, first);
    smaller(narrow);
  }
  return result;
}

/// Where errors are no larger than what the contract allows elsewhere.
constexpr double less_sure = 0.7;

/// Of one call that is wrong by itself. `place`: the worst place, where no single row is refused.
Localisation of_wrong_call(const Experiment& with, const Problem& problem, const Run& run, const std::optional<Place>& place,
                           Fault left_out, bool reduced = false) {
  const Contract& contract = with.kernel.contract;
  const bool backward = with.direction == Direction::backward;
  Localisation result;
  if (with.sharper > 1)
    result.first_wrong = place;
  else
    result.first_wrong =
        backward ? first_wrong_gradient(contract, problem, run, with.judge) : first_wrong(contract, problem, run, with.judge);
  const bool row_found = result.first_wrong.has_value();
  if (!result.first_wrong) result.first_wrong = place;
  const Place at = result.first_wrong.value_or(Place{});
  if (!reduced && with.sharper == 1 && size_of(problem) > large)
    if (const auto fewer = smaller_and_wrong(with, problem, at)) {
      const Run again = with.run(*fewer);
      Localisation of_fewer = of_wrong_call(with, *fewer, again, with.judged(*fewer, again).place, left_out, true);
      of_fewer.first_wrong = std::move(result.first_wrong);
      return of_fewer;
    }
  if (with.sharper == 1)
    result.by_experiments =
        size_of(problem) > large ? stage_by_repetition(with, problem, run) : stage_by_experiments(with, problem, run, at);
  std::optional<SeenChunk> seen;
  if (backward) {
    result.by_intermediates = stage_by_gradients(with, problem, run, at, seen);
  } else if (row_found) {
    if (const auto chunk = chunk_of(contract, problem, at); chunk && problem.options.rule == Rule::kda)
      seen = wrong_chunk(with, problem, *chunk);
    result.by_intermediates = stage_by_intermediates(with, problem, run, at, seen);
  } else {
    result.by_intermediates = unclear("no single row is refused by itself");
  }
  if (!backward && with.sharper == 1 && !result.by_intermediates.stage) {
    const double largest = with.excess(problem, run); // too near to the bound for spreads to tell right from wrong: by shares of the error
    if (largest > 0 && largest < 4 * noise_in_spreads) {
      const Experiment sharper{with.kernel, with.direction, with.judge, 4 * noise_in_spreads / largest};
      result.by_intermediates = stage_by_intermediates(sharper, problem, sharper.run(problem), at, seen);
      result.by_intermediates.confidence *= less_sure;
    }
  }
  result.by_faults = stage_by_faults(with.kernel, with.direction, problem, run, with.judge, left_out, with.sharper);
  // A fault that does not act everywhere is nearest to others where it does; and of a large case the wrong chunk is quick to fit.
  if (seen && (!seen->alone() || (!backward && size_of(seen->chunk) < size_of(problem) && !result.by_faults.fitted))) {
    StageOpinion of_chunk = stage_by_faults(with.kernel, with.direction, seen->chunk, seen->run, with.judge, left_out, with.sharper);
    if (!result.by_faults.fitted || (of_chunk.stage && of_chunk.confidence > result.by_faults.confidence))
      result.by_faults = std::move(of_chunk);
  }
  result.together = result.by_experiments.stage ? result.by_experiments : together(result.by_intermediates, result.by_faults);
  return result;
}

bool is_usual(const RunOptions& options) {
  const RunOptions usual;
  return options.final_state && options.poison == usual.poison && options.workspace_poison == usual.workspace_poison && !options.strided &&
         options.not_wanted == usual.not_wanted;
}

/// Right where the call is made as usual: then what was unusual about it is to blame.
StageOpinion of_options(const RunOptions& options) {
  if (options.strided) return says(Stage::inputs, 0.9, "right where the rows of its inputs lie side by side");
  if (!options.final_state) return says(Stage::call, 0.9, "right where the final state is asked for");
  if (options.not_wanted != RunOptions{}.not_wanted) return says(Stage::call, 0.9, "right where every gradient is asked for");
  return says(Stage::call, 0.9, "right where memory held something else before the call");
}

Localisation only(StageOpinion opinion, std::optional<Place> place = std::nullopt) {
  Localisation result;
  result.together = std::move(opinion);
  result.first_wrong = std::move(place);
  return result;
}

Localisation of_call(const Kernel& kernel, const ObservedCall& call, const Finding& finding, Judge& judge, Fault left_out) {
  const Experiment with{kernel, call.pass == Pass::backward ? Direction::backward : Direction::forward, judge};
  if (is_usual(call.options)) return of_wrong_call(with, call.problem, call.run, finding.place, left_out);
  if (with.fails(call.problem) == false) return only(of_options(call.options), finding.place);
  const Run run = with.run(call.problem);
  return of_wrong_call(with, call.problem, run, with.judged(call.problem, run).place, left_out);
}

/// A call that is right by the oracle and wrong by a law that is sharper: errors are looked at down to a share of the largest.
std::optional<Localisation> of_sharper_law(const Kernel& kernel, const LawSeen& seen, Judge& judge, Fault left_out) {
  const ObservedCall& call = seen.calls.back();
  const Kernel called = called_kernel(kernel, call.pass);
  const double largest = Experiment{called, Direction::forward, judge}.excess(
      call.problem, without_last_rounding(called.contract, *judge.forward_truth(call.problem), call.run));
  if (!(largest > 0) || !std::isfinite(largest)) return std::nullopt;
  constexpr double roundings = 1.0 / 16; // smaller errors than this share of the largest are taken for roundings
  const Experiment with{called, Direction::forward, judge, std::max(1.0, noise_in_spreads / (roundings * largest))};
  Localisation found = of_wrong_call(with, call.problem, with.run(call.problem), seen.finding.place, left_out);
  found.about = fmt::format("right by the oracle's bound, wrong by the law's own: {}", seen.finding.detail);
  found.together.confidence *= less_sure;
  return found;
}

} // namespace

Localisation localise(const Kernel& kernel, const Property& property, const Recipe& given, Judge& judge, Fault left_out) {
  Recipe recipe = given;
  if (property.direction == Direction::forward) recipe.loss = LossPattern::none; // as the law was tried
  const Problem problem = make_problem(recipe, input_formats(kernel.contract));
  if (malformed(problem) || outside_domain(kernel.contract, problem)) return only(unclear("the case lies outside the kernel's domain"));
  LawSeen seen;
  try {
    seen = seen_again(kernel, property, recipe, judge);
  } catch (const KernelBrokeLaw& broken) {
    return only(says(Stage::call, 0.9, broken.what()));
  }
  if (!is_failure(seen.finding.verdict))
    return only(says(Stage::call, 0.6, "the law holds when it is tried again: what the kernel gives changes from call to call"));
  if (auto repeated = of_repeated_calls(kernel, seen)) return *repeated;
  const auto wrong = first_wrong_call(kernel, seen, judge);
  if (wrong) {
    const ObservedCall& call = seen.calls[wrong->index];
    Localisation found = of_call(called_kernel(kernel, call.pass), call, wrong->finding, judge, left_out);
    found.about = about_call(seen, wrong->index);
    return found;
  }
  if (is_sharper_than_the_oracle(seen) && seen.calls.back().run.trespasses.empty())
    if (auto found = of_sharper_law(kernel, seen, judge, left_out)) return *found;
  return of_right_calls(kernel, seen);
}

} // namespace kdacheck
