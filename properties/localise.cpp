#include "localise.hpp"

#include "transform.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace kdacheck {
namespace {

/// A kernel's run with everything from a point on replaced by what is exact.
struct Masked {
  const Contract& contract;
  const Problem& problem;
  const Truth& truth;
  const Run& run;
  Judge& judge;

  struct Row {
    std::int64_t position, sequence, head;
    std::size_t at; ///< of its first element
    auto key() const { return std::tuple(position, sequence, head); }
  };

  /// Rows of o, earliest token first; then rows of the final state.
  std::vector<Row> rows(Output output) const {
    const auto& [B, T, H, HV, K, V] = problem.shape;
    std::vector<Row> all;
    for (const Sequence& sequence : sequences(problem))
      for (std::int64_t i = 0; i < (output == Output::o ? sequence.length : K); ++i)
        for (std::int64_t head = 0; head < HV; ++head) {
          const std::int64_t row = output == Output::o ? (sequence.first + i) * HV + head : (sequence.index * HV + head) * K + i;
          all.push_back({i, sequence.index, head, static_cast<std::size_t>(row * V)});
        }
    std::ranges::sort(all, {}, &Row::key);
    return all;
  }

  /// The judge's verdict if only the first `count` rows are the kernel's own.
  bool refused(Output output, const std::vector<Row>& all, std::size_t count) const {
    Run mixed;
    mixed.o.assign(truth.o.value.begin(), truth.o.value.end());
    for (float& x : mixed.o) x = round_to(contract.output, x);
    if (!run.final_state.empty()) mixed.final_state.assign(truth.final_state.value.begin(), truth.final_state.value.end());
    const std::vector<float>& from = run[output];
    std::vector<float>& to = output == Output::o ? mixed.o : mixed.final_state;
    const auto V = static_cast<std::size_t>(problem.shape.V);
    for (std::size_t i = 0; i < count; ++i)
      std::copy_n(from.begin() + static_cast<std::ptrdiff_t>(all[i].at), V, to.begin() + static_cast<std::ptrdiff_t>(all[i].at));
    return is_failure(judge.forward(contract, problem, mixed).verdict);
  }

  std::optional<Row> first(Output output) const {
    const std::vector<Row> all = rows(output);
    if (all.empty() || run[output].empty() || !refused(output, all, all.size())) return std::nullopt;
    std::size_t right = 0, wrong = all.size();
    while (wrong - right > 1) {
      const std::size_t middle = (right + wrong) / 2;
      (refused(output, all, middle) ? wrong : right) = middle;
    }
    return all[wrong - 1];
  }

  std::int64_t worst_channel(Output output, const Row& row) const {
    std::int64_t worst = 0;
    double largest = -1;
    for (std::int64_t j = 0; j < problem.shape.V; ++j) {
      const auto at = row.at + static_cast<std::size_t>(j);
      const double error = std::abs(static_cast<double>(run[output][at]) - truth[output].value[at]);
      if (!(error <= largest)) largest = error, worst = j;
    }
    return worst;
  }
};

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
  text += "; by intermediates " + spoken(found.by_intermediates) + "; by planted faults " + spoken(found.by_faults);
  if (found.first_wrong) text += "; first wrong at " + to_text(*found.first_wrong);
  return text;
}

std::optional<Place> first_wrong(const Contract& contract, const Problem& problem, const Run& run, Judge& judge) {
  const auto truth = judge.forward_truth(problem);
  const Masked masked{contract, problem, *truth, run, judge};
  if (run.o.size() != truth->o.value.size() || (!run.final_state.empty() && run.final_state.size() != truth->final_state.value.size()))
    return std::nullopt;
  if (const auto row = masked.first(Output::o))
    return Place{.tensor = "o",
                 .sequence = row->sequence,
                 .head = row->head,
                 .token = row->position,
                 .channel = masked.worst_channel(Output::o, *row),
                 .chunk_position = row->position % contract.chunk};
  if (const auto row = masked.first(Output::final_state))
    return Place{.tensor = "final_state",
                 .sequence = row->sequence,
                 .head = row->head,
                 .channel = masked.worst_channel(Output::final_state, *row),
                 .row = row->position};
  return std::nullopt;
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
  if (backward) {
    result.by_intermediates = unclear("gradients have no intermediates to compare with");
    result.first_wrong = plain.place;
  } else {
    result.first_wrong = first_wrong(contract, problem, run, judge);
    result.by_intermediates = result.first_wrong ? stage_by_intermediates(kernel, problem, run, *result.first_wrong, judge)
                                                 : unclear("no single row is refused by itself");
  }
  result.by_faults = stage_by_faults(kernel, property.direction, problem, run, judge, left_out);
  result.together = together(result.by_intermediates, result.by_faults);
  return result;
}

} // namespace kdacheck
