#include "localise.hpp"

#include "../transform.hpp"
#include "seen_chunk.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace kdacheck {
namespace {

std::string spoken(const StageOpinion& opinion) {
  return (opinion.stage ? fmt::format("{} {:.2f}", name(*opinion.stage), opinion.confidence) : std::string("unclear")) +
         (opinion.grounds.empty() ? "" : ": " + opinion.grounds);
}

/// Agreement counts for more than either alone; a contradiction is settled only if one is much surer.
StageOpinion together(const StageOpinion& one, const StageOpinion& other) {
  constexpr double much_surer = 0.3; // a choice; what it achieves is measured by tests/localise.cpp
  if (!one.stage && !other.stage) return {.stage = {}, .confidence = 0, .grounds = "neither way can tell"};
  if (!one.stage) return other;
  if (!other.stage) return one;
  if (one.stage == other.stage)
    return {.stage = one.stage, .confidence = 1 - (1 - one.confidence) * (1 - other.confidence), .grounds = "both ways agree"};
  if (one.confidence >= other.confidence + much_surer) return one;
  if (other.confidence >= one.confidence + much_surer) return other;
  return {.stage = {}, .confidence = 0, .grounds = "the two ways contradict each other"};
}

} // namespace

std::string to_text(const Localisation& found) {
  std::string text = found.together.stage
                         ? fmt::format("stage {} (confidence {:.2f})", name(*found.together.stage), found.together.confidence)
                         : "stage unclear (" + found.together.grounds + ")";
  if (found.by_experiments.stage) text += "; by experiments " + spoken(found.by_experiments);
  text += "; by intermediates " + spoken(found.by_intermediates) + "; by planted faults " + spoken(found.by_faults);
  if (found.first_wrong) text += "; first wrong at " + to_text(*found.first_wrong);
  return text;
}

Localisation localise(const Kernel& kernel, const Property& property, const Recipe& recipe, Judge& judge, Fault left_out) {
  const Contract& contract = kernel.contract;
  const Problem problem = with_cotangents_in(make_problem(recipe, input_formats(contract)), contract.output);
  Localisation result;
  const auto unclear = [](std::string why) { return StageOpinion{.stage = {}, .confidence = 0, .grounds = std::move(why)}; };
  if (malformed(problem) || outside_domain(contract, problem)) {
    result.together = unclear("the case lies outside the kernel's domain");
    return result;
  }
  const bool backward = property.direction == Direction::backward;
  const Run run = backward ? run_backward(kernel, problem) : run_forward(kernel, problem);
  if (run.refused) {
    result.together = unclear("the kernel refuses the case");
    return result;
  }
  const Finding plain = backward ? judge.backward(contract, problem, run) : judge.forward(contract, problem, run);
  if (!is_failure(plain.verdict)) {
    result.together = {.stage = Stage::call, .confidence = 0.5, .grounds = "the plain call of this case gives the right numbers"};
    return result;
  }
  const Experiment with{kernel, property.direction, judge};
  result.first_wrong = backward ? first_wrong_gradient(contract, problem, run, judge) : first_wrong(contract, problem, run, judge);
  if (backward && !result.first_wrong) result.first_wrong = plain.place;
  const Place at = result.first_wrong ? *result.first_wrong : plain.place.value_or(Place{});
  result.by_experiments = stage_by_experiments(with, problem, run, at);
  std::optional<SeenChunk> seen;
  if (backward) {
    result.by_intermediates = stage_by_gradients(with, problem, run, at, seen);
  } else if (result.first_wrong) {
    if (const auto place = chunk_of(contract, problem, at); place && problem.options.rule == Rule::kda)
      seen = wrong_chunk(with, problem, *place);
    result.by_intermediates = stage_by_intermediates(with, problem, run, at, seen);
  } else {
    result.by_intermediates = unclear("no single row is refused by itself");
  }
  result.by_faults = stage_by_faults(kernel, property.direction, problem, run, judge, left_out);
  if (seen && !seen->alone()) { // a fault that does not act everywhere is nearest to others where it does
    StageOpinion of_chunk = stage_by_faults(kernel, property.direction, seen->chunk, seen->run, judge, left_out);
    if (of_chunk.stage && of_chunk.confidence > result.by_faults.confidence) result.by_faults = std::move(of_chunk);
  }
  result.together = result.by_experiments.stage ? result.by_experiments : together(result.by_intermediates, result.by_faults);
  return result;
}

} // namespace kdacheck
