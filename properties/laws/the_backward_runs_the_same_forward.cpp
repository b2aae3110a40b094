// A backward pass runs the forward again, or parts of it, and differentiates what it gets. From outside this shows in the
// relations of homogeneity (homogeneity.hpp): they are exact whatever the numbers are, as long as both passes have the
// same ones. They need no oracle, and as sums over a token or a sequence they show what leans to one side, such as a strength
// or a state rounded once more in the backward pass, under noise that hides it in single elements.

#include "../perturbed/trial.hpp"

#include "../confidence.hpp"
#include "../homogeneity.hpp"

#include <cmath>

namespace kdacheck::laws {
namespace {

/// Left minus right of one relation, and the sum of its terms' sizes.
struct Defect {
  double difference = 0, size = 0, terms = 0;
  void add(float x, float y, double sign) {
    const double term = static_cast<double>(x) * y;
    difference += sign * term, size += std::abs(term), ++terms;
  }
};

struct Defects {
  std::vector<Defect> token, head; ///< as in HomogeneitySpread
};

Defects defects_of(const Problem& problem, const Run& forward, const Run& backward) {
  const auto& [B, T, H, HV, K, V] = problem.shape;
  const auto gradient = [&](Input input) -> const std::vector<float>& { return backward.gradient[static_cast<std::size_t>(input)]; };
  Defects defects{std::vector<Defect>(static_cast<std::size_t>(B * T * H)),
                  std::vector<Defect>(static_cast<std::size_t>(sequence_count(problem) * HV))};
  for (std::size_t i = 0; i < problem.q.size(); ++i)
    defects.token[i / static_cast<std::size_t>(K)].add(problem.q[i], gradient(Input::q)[i], 1);
  for (const Sequence& sequence : sequences(problem))
    for (std::int64_t head = 0; head < HV; ++head) {
      Defect& whole = defects.head[static_cast<std::size_t>(sequence.index * HV + head)];
      for (std::int64_t t = sequence.first; t < sequence.first + sequence.length; ++t)
        for (std::int64_t j = 0; j < V; ++j) {
          const auto at = static_cast<std::size_t>((t * HV + head) * V + j);
          whole.add(problem.v[at], gradient(Input::v)[at], 1);
          if (problem.d_o.empty()) continue;
          whole.add(problem.d_o[at], forward.o[at], -1);
          defects.token[static_cast<std::size_t>(t * H + head / (HV / H))].add(problem.d_o[at], forward.o[at], -1);
        }
      for (std::int64_t i = 0; i < K * V; ++i) {
        const auto at = static_cast<std::size_t>((sequence.index * HV + head) * K * V + i);
        if (!problem.initial_state.empty()) whole.add(problem.initial_state[at], gradient(Input::initial_state)[at], 1);
        if (!problem.d_final_state.empty()) whole.add(problem.d_final_state[at], forward.final_state[at], -1);
      }
    }
  return defects;
}

/// Largest difference / bound; `draws` as in confidence_factor.
struct Worst {
  double ratio = 0, difference = 0, bound = 1;
  Place place;
};

Worst worst_of(const Problem& problem, const Defects& defects, const HomogeneitySpread& spread, int draws) {
  const auto groups = static_cast<std::int64_t>(defects.token.size() + defects.head.size());
  const double z = confidence_factor(Group::gradient, groups, 1, draws);
  const std::int64_t HV = problem.shape.HV, H = problem.shape.H;
  Worst worst;
  const auto weigh = [&](const Defect& defect, double sigma, Place place) {
    if (std::isinf(sigma)) return;                           // the contract's own range overflows
    const double own = 0x1p-53 * defect.terms * defect.size; // products of two floats are exact, sums round once per term
    const double difference = std::abs(defect.difference), bound = z * sigma + own;
    const double ratio = difference == 0 ? 0 : difference / bound;
    if (!(ratio <= worst.ratio) && !std::isnan(worst.ratio)) worst = {ratio, difference, bound, std::move(place)};
  };
  for (const Sequence& sequence : sequences(problem)) {
    for (std::int64_t t = 0; t < sequence.length; ++t)
      for (std::int64_t h = 0; h < H; ++h) {
        const auto at = static_cast<std::size_t>((sequence.first + t) * H + h);
        weigh(defects.token[at], spread.token[at], {.tensor = "dq", .sequence = sequence.index, .head = h, .token = t});
      }
    for (std::int64_t h = 0; h < HV; ++h) {
      const auto at = static_cast<std::size_t>(sequence.index * HV + h);
      weigh(defects.head[at], spread.head[at], {.tensor = "dv", .sequence = sequence.index, .head = h});
    }
  }
  return worst;
}

void law(Trial& trial) {
  Recipe recipe = trial.plain();
  recipe.loss = LossPattern::everywhere;
  const Problem problem = trial.make(recipe);

  const Run backward = trial.backward(problem);
  trial.forward(scaled(problem, {Input::v}, 0.5f));
  trial.expect_same_or_true_gradients(trial.contract.repeat, problem, backward, trial.backward(problem),
                                      "after a forward pass of other values");
  const Run forward = trial.forward(problem);
  trial.expect_same_or_true_gradients(trial.contract.repeat, problem, backward, trial.backward(problem), "after its own forward pass");

  const Defects defects = defects_of(problem, forward, backward);
  const auto truth = trial.judge.gradient_truth(problem);
  constexpr int screening = 1, confirming = 16; // batches
  const auto spread_of = [&](int batches) {
    return homogeneity_spread(trial.contract, problem, *truth, recipe.seed + static_cast<std::uint64_t>(batches), batches);
  };
  Worst worst = worst_of(problem, defects, spread_of(screening), 0);
  if (!(worst.ratio <= 1)) { // with fresh noise, and the factor that its number of draws deserves
    const HomogeneitySpread fresh = spread_of(confirming);
    worst = worst_of(problem, defects, fresh, fresh.draws);
  }
  trial.expect_within(worst.difference, worst.bound,
                      worst.place.tensor == "dq" ? "q . dq is not d_o . o of the forward pass"
                                                 : "v . dv + S_0 . dS_0 is not d_o . o + d_S . S_T of the forward pass",
                      worst.place);
}

} // namespace

Property the_backward_runs_the_same_forward() {
  return {.name = "the-backward-runs-the-same-forward",
          .claim = "the backward pass differentiates the numbers that the forward pass wrote: q . dq = d_o . o for every token, "
                   "v . dv + S_0 . dS_0 = d_o . o + d_S . S_T for every sequence and head, whatever ran before",
          .direction = Direction::backward,
          .check = tried<law>};
}

} // namespace kdacheck::laws
