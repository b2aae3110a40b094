// The spread of perturbed backward passes around the true gradients.

#include "budget.hpp"

#include "confidence.hpp"
#include "perturbed/gradient_trial.hpp"
#include "proved/proved_bound.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace kdacheck {
namespace {

/// Second and fourth moments of every group of every gradient under one submodel.
struct GradientMoments {
  std::array<std::vector<double>, all_inputs.size()> second, fourth;
};

std::size_t index(Input input) { return static_cast<std::size_t>(input); }

std::int64_t groups_of(Input input, const Shape& s, std::int64_t N) {
  const auto shape = shape_of(input, s, N);
  switch (input) {
  case Input::beta:
  case Input::A_log:
  case Input::dt_bias: return shape[0] * shape[1] * shape[2] * shape[3];
  default: return shape[0] * shape[1] * shape[2];
  }
}

void smooth_over_tokens(const Problem& problem, std::vector<double>& sigma) {
  constexpr std::int64_t window = beta_window;
  const std::int64_t HV = problem.shape.HV;
  for (const Sequence& sequence : sequences(problem))
    for (std::int64_t head = 0; head < HV; ++head)
      for (std::int64_t start = 0; start < sequence.length; start += window) {
        const std::int64_t end = std::min(start + window, sequence.length);
        const auto at = [&](std::int64_t t) { return static_cast<std::size_t>((sequence.first + t) * HV + head); };
        double squares = 0;
        for (std::int64_t t = start; t < end; ++t) squares += sigma[at(t)] * sigma[at(t)] / static_cast<double>(end - start);
        for (std::int64_t t = start; t < end; ++t) sigma[at(t)] = std::max(sigma[at(t)], std::sqrt(squares));
      }
}

constexpr std::int64_t shortest_block = 16;

/// Whether a chunk may be worked through in blocks. Near a fixed point the residual of a block's first token has the whole error of a
/// rounded state, later ones what the block's own writes leave of it: which token is the first matters. Not where states are rounded to a
/// coarser format, which happens at the ends of whole chunks only.
bool has_shorter_blocks(const Contract& contract, const Problem& problem) {
  return contract.chunk > shortest_block && contract.order != Order::recurrence && problem.shape.T > shortest_block &&
         unit_roundoff(contract.operands) > unit_roundoff(Format::fp32) && contract.state == Format::fp32 &&
         contract.gradient_state == Format::fp32;
}

} // namespace

Budget gradient_budget(const Contract& contract, const Problem& problem, const Truth& truth, std::uint64_t noise_seed, int draws,
                       Submodels submodels) {
  const std::int64_t N = sequence_count(problem);
  const int batches = std::max(1, (draws + draws_per_batch - 1) / draws_per_batch);
  Budget budget;
  budget.draws = batches * draws_per_batch;
  budget.proved = proved_gradient_bound(contract, problem, submodels);
  std::vector<GradientMoments> moments;
  std::size_t earlier = 0; // submodels of another length
  const auto collect = [&](std::size_t of_length, Input input, std::int64_t group, Lanes mean_square) {
    const std::size_t submodel = earlier + of_length;
    while (moments.size() <= submodel) {
      GradientMoments& added = moments.emplace_back();
      for (Input each : all_inputs)
        if (!truth[each].empty())
          added.second[index(each)] = added.fourth[index(each)] =
              std::vector<double>(static_cast<std::size_t>(groups_of(each, problem.shape, N)), 0.0);
    }
    for (int lane = 0; lane < draws_per_batch; ++lane) {
      moments[submodel].second[index(input)][static_cast<std::size_t>(group)] += mean_square[lane];
      moments[submodel].fourth[index(input)][static_cast<std::size_t>(group)] += mean_square[lane] * mean_square[lane];
    }
  };
  run_gradient_trials(contract, problem, truth, noise_seed, batches, submodels, collect);
  if (takes_all(submodels) && has_shorter_blocks(contract, problem)) {
    earlier = moments.size();
    Contract in_blocks = contract;
    in_blocks.chunk = shortest_block;
    run_gradient_trials(in_blocks, problem, truth, scatter(noise_seed + 1), batches, submodels, collect);
  }
  for (Input input : all_inputs) {
    if (truth[input].empty()) continue;
    GradientBudget& result = budget.gradient[index(input)];
    result.fine.assign(static_cast<std::size_t>(groups_of(input, problem.shape, N)), 0.0);
    result.freedom.assign(result.fine.size(), 1.0);
    for (const GradientMoments& m : moments) {
      if (m.second[index(input)].empty()) continue;
      for (std::size_t group = 0; group < result.fine.size(); ++group) {
        const double second = m.second[index(input)][group];
        double sigma = std::sqrt(second / budget.draws);
        if (!std::isfinite(sigma)) sigma = std::numeric_limits<double>::infinity();
        const double freedom = degrees_of_freedom(second, m.fourth[index(input)][group], budget.draws);
        if (!(reach(Group::gradient, sigma, freedom) >= reach(Group::gradient, result.fine[group], result.freedom[group]))) continue;
        result.fine[group] = sigma;
        result.freedom[group] = freedom;
      }
    }
    if (input == Input::beta) smooth_over_tokens(problem, result.fine);
  }
  return budget;
}

} // namespace kdacheck
