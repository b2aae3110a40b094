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

std::int64_t channels_of(Input input, const Shape& s, std::int64_t N) {
  switch (input) {
  case Input::q:
  case Input::k: return N * s.H * s.K;
  case Input::v:
  case Input::initial_state: return N * s.HV * s.V;
  case Input::g:
  case Input::a:
  case Input::b: return N * s.HV * s.K;
  default: return 0;
  }
}

/// Second and fourth moments of every group of every gradient under one submodel.
class GradientMoments {
public:
  GradientMoments(const Problem& problem, const Truth& truth) {
    const std::int64_t N = sequence_count(problem);
    for (Input input : all_inputs) {
      if (truth[input].empty()) continue;
      of(GradientGroup::line, input).resize(static_cast<std::size_t>(groups_of(input, problem.shape, N)));
      of(GradientGroup::channel, input).resize(static_cast<std::size_t>(channels_of(input, problem.shape, N)));
    }
  }

  void add(GradientGroup kind, Input input, std::int64_t group, Lanes mean_square) {
    Moments& moments = of(kind, input)[static_cast<std::size_t>(group)];
    for (int lane = 0; lane < draws_per_batch; ++lane) {
      moments.second += mean_square[lane];
      moments.fourth += mean_square[lane] * mean_square[lane];
    }
  }

  /// Widens sigma where this submodel reaches farther.
  void widen(GradientGroup kind, Input input, Group group, int draws, std::vector<double>& sigma, std::vector<double>& freedom) const {
    const std::vector<Moments>& all = moments_[static_cast<std::size_t>(kind)][index(input)];
    for (std::size_t i = 0; i < all.size(); ++i) {
      double spread = std::sqrt(all[i].second / draws);
      if (!std::isfinite(spread)) spread = std::numeric_limits<double>::infinity();
      const double d = degrees_of_freedom(all[i].second, all[i].fourth, draws);
      if (!(reach(group, spread, d) >= reach(group, sigma[i], freedom[i]))) continue;
      sigma[i] = spread;
      freedom[i] = d;
    }
  }

private:
  struct Moments {
    double second = 0, fourth = 0;
  };
  std::vector<Moments>& of(GradientGroup kind, Input input) { return moments_[static_cast<std::size_t>(kind)][index(input)]; }
  std::array<std::array<std::vector<Moments>, all_inputs.size()>, 2> moments_;
};

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
  const auto collect = [&](std::size_t of_length, GradientGroup kind, Input input, std::int64_t group, Lanes mean_square) {
    while (moments.size() <= earlier + of_length) moments.emplace_back(problem, truth);
    moments[earlier + of_length].add(kind, input, group, mean_square);
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
    result.channel.assign(static_cast<std::size_t>(channels_of(input, problem.shape, N)), 0.0);
    result.channel_freedom.assign(result.channel.size(), 1.0);
    for (const GradientMoments& m : moments) {
      m.widen(GradientGroup::line, input, Group::gradient, budget.draws, result.fine, result.freedom);
      m.widen(GradientGroup::channel, input, Group::gradient_channel, budget.draws, result.channel, result.channel_freedom);
    }
    if (input == Input::beta) smooth_over_tokens(problem, result.fine);
  }
  return budget;
}

} // namespace kdacheck
