// What is small is taken for zero, or nothing was done at all: both show in what was written, or in a call of larger numbers.

#include "experiments.hpp"

#include "transform.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

namespace kdacheck {
namespace {

float largest_of(std::span<const float> numbers) {
  float largest = 0;
  for (const float x : numbers) largest = std::max(largest, std::abs(x));
  return largest;
}

/// All that is zero and should not be is smaller than all that is not zero, in every gradient; some is.
bool only_small_ones_are_zero(const Truth& truth, const Run& run) {
  bool any = false;
  for (Input input : all_inputs) {
    const std::vector<float>& written = run.gradient[static_cast<std::size_t>(input)];
    const Enclosed& exact = truth[input];
    if (written.size() != exact.value.size()) continue;
    double zeroed = 0, kept = std::numeric_limits<double>::infinity();
    std::size_t count = 0;
    for (std::size_t i = 0; i < written.size(); ++i) {
      const double size = std::abs(exact.value[i]);
      if (!(size > exact.radius[i])) continue;
      if (!std::isfinite(written[i])) return false;
      if (written[i] == 0)
        zeroed = std::max(zeroed, size), ++count;
      else
        kept = std::min(kept, size);
    }
    if (zeroed > kept) return false;
    any = any || (count >= 2 && zeroed > 0x1p-120 && std::isfinite(kept));
  }
  return any;
}

} // namespace

StageOpinion stage_by_size(const Experiment& with, const Problem& problem, const Run& run) {
  // Rows of keys, single decays: those that are small, made usual by a power of two.
  const auto right_if_larger = [&](Input input, std::size_t row, float small, float usual) {
    Problem larger = problem;
    std::vector<float>& tensor = larger[input];
    bool any = false;
    for (std::size_t at = 0; at < tensor.size(); at += row) {
      const std::span<float> part(tensor.data() + at, std::min(row, tensor.size() - at));
      const float largest = largest_of(part);
      if (!(largest > 0) || largest > small) continue;
      any = true;
      const float factor = std::exp2(std::floor(std::log2(usual / largest)));
      for (float& x : part) x *= factor;
    }
    return any && with.fails(larger) == false;
  };
  if (!problem.options.l2norm && right_if_larger(Input::k, static_cast<std::size_t>(problem.shape.K), 0x1p-9f, 0x1p-3f))
    return says(Stage::inputs, 0.85, "right where short keys are longer");
  if (problem.options.gate == GateForm::log_decay && right_if_larger(Input::g, 1, 0x1p-12f, 0x1p-6f))
    return says(Stage::gate_sum, 0.85, "right where faint decays are stronger");
  if (with.direction == Direction::backward && only_small_ones_are_zero(*with.judge.gradient_truth(problem), run))
    return says(Stage::output, 0.7, "gradients below a size are written as zero");
  return unclear();
}

StageOpinion stage_by_skipped_tokens(const Experiment& with, const Problem& problem, const Run& run, const Place& at) {
  if (with.direction == Direction::backward || at.sequence < 0 || run.final_state.empty()) return unclear();
  const Sequence sequence = sequences(problem)[static_cast<std::size_t>(at.sequence)];
  const auto truth = with.judge.forward_truth(problem);
  const Shape& s = problem.shape;
  const std::int64_t head = std::max<std::int64_t>(at.head, 0);
  bool moved = false, shown = false;
  for (std::int64_t i = 0; i < s.K * s.V; ++i) {
    const auto e = static_cast<std::size_t>((at.sequence * s.HV + head) * s.K * s.V + i);
    const float before = problem.initial_state.empty() ? 0 : problem.initial_state[e];
    if (run.final_state[e] != before) return unclear();
    moved = moved || std::abs(truth->final_state.value[e] - static_cast<double>(before)) > truth->final_state.radius[e];
  }
  for (std::int64_t t = sequence.first; t < sequence.first + sequence.length; ++t)
    for (std::int64_t j = 0; j < s.V; ++j) {
      const auto e = static_cast<std::size_t>((t * s.HV + head) * s.V + j);
      if (run.o[e] != 0) return unclear();
      shown = shown || std::abs(truth->o.value[e]) > truth->o.radius[e];
    }
  return moved && shown ? says(Stage::inputs, 0.8, "o is zero and the state as it began: no token of the sequence was read") : unclear();
}

} // namespace kdacheck
