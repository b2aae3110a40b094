#include "budget.hpp"

#include "confidence.hpp"
#include "head_spread.hpp"
#include "proved/proved_bound.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace kdacheck {
namespace {

HeadTruth head_truth(const Problem& problem, const Truth& truth, const Sequence& sequence, std::int64_t head,
                     const std::vector<std::int64_t>& columns) {
  const auto& [B, T, H, HV, K, V] = problem.shape;
  HeadTruth result;
  for (std::int64_t t = 0; t < sequence.length; ++t)
    for (std::int64_t j : columns) result.o.push_back(truth.o.value[static_cast<std::size_t>(((sequence.first + t) * HV + head) * V + j)]);
  for (std::int64_t c = 0; c < K; ++c)
    for (std::int64_t j : columns)
      result.state.push_back(truth.final_state.value[static_cast<std::size_t>(((sequence.index * HV + head) * K + c) * V + j)]);
  return result;
}

/// Keeps the sigma that reaches farther, with its degrees of freedom.
void widen(Group group, double& sigma, double& freedom, const Moments& moments, int draws) {
  double candidate = std::sqrt(moments.second / draws);
  if (!std::isfinite(candidate)) candidate = std::numeric_limits<double>::infinity();
  const double of_candidate = degrees_of_freedom(moments.second, moments.fourth, draws);
  if (!(reach(group, candidate, of_candidate) >= reach(group, sigma, freedom))) return;
  sigma = candidate;
  freedom = of_candidate;
}

} // namespace

Budget forward_budget(const Contract& contract, const Problem& problem, const Truth& truth, std::uint64_t noise_seed, int draws,
                      Submodels submodels) {
  const auto& [B, T, H, HV, K, V] = problem.shape;
  const std::int64_t N = sequence_count(problem);
  const int batches = std::max(1, (draws + draws_per_batch - 1) / draws_per_batch);
  const auto zeros = [](std::int64_t n) { return std::vector<double>(static_cast<std::size_t>(n), 0.0); };
  const auto ones = [](std::int64_t n) { return std::vector<double>(static_cast<std::size_t>(n), 1.0); };
  Budget budget;
  budget.draws = batches * draws_per_batch;
  budget.proved = proved_bound(contract, problem, submodels);
  OutputBudget& out = budget.output;
  out.token = zeros(B * T * HV), out.token_freedom = ones(B * T * HV);
  out.channel = out.state_column = zeros(N * HV * V), out.channel_freedom = out.state_column_freedom = ones(N * HV * V);
  out.state_row = zeros(N * HV * K), out.state_row_freedom = ones(N * HV * K);
  for (const Sequence& sequence : sequences(problem)) {
    const std::int64_t work = std::max<std::int64_t>(sequence.length * K, 1);
    for (std::int64_t head = 0; head < HV; ++head) {
      const std::vector<double> sizes = column_sizes(problem, sequence, head);
      const auto columns = choose_columns(sizes, std::max(least_columns, affordable_work / work));
      const Head data = read_head(contract, problem, sequence, head, columns);
      const HeadTruth exact = head_truth(problem, truth, sequence, head, columns);
      const std::uint64_t seed =
          scatter(scatter(noise_seed + static_cast<std::uint64_t>(sequence.index)) + static_cast<std::uint64_t>(head));
      for (const HeadSpread& spread : head_spread(contract, data, exact, seed, batches, submodels)) {
        for (std::int64_t t = 0; t < sequence.length; ++t) {
          const auto at = static_cast<std::size_t>((sequence.first + t) * HV + head);
          widen(Group::token, out.token[at], out.token_freedom[at], spread.token[static_cast<std::size_t>(t)], budget.draws);
        }
        for (std::int64_t c = 0; c < K; ++c) {
          const auto at = static_cast<std::size_t>((sequence.index * HV + head) * K + c);
          widen(Group::state_row, out.state_row[at], out.state_row_freedom[at], spread.row[static_cast<std::size_t>(c)], budget.draws);
        }
        const auto first = static_cast<std::size_t>((sequence.index * HV + head) * V);
        for (std::size_t j = 0; j < columns.size(); ++j) {
          const std::size_t at = first + static_cast<std::size_t>(columns[j]);
          widen(Group::channel, out.channel[at], out.channel_freedom[at], spread.channel[j], budget.draws);
          widen(Group::state_column, out.state_column[at], out.state_column_freedom[at], spread.column[j], budget.draws);
        }
      }
      // a column that was not followed gets the largest budget seen relative to its size
      const auto extend = [&](std::vector<double>& sigma, std::vector<double>& freedom) {
        const auto first = static_cast<std::size_t>((sequence.index * HV + head) * V);
        double relative = 0, of_freedom = 64;
        std::vector<char> followed(static_cast<std::size_t>(V), 0);
        for (std::int64_t j : columns) {
          const std::size_t at = first + static_cast<std::size_t>(j);
          relative = std::max(relative, sigma[at] / sizes[static_cast<std::size_t>(j)]);
          of_freedom = std::min(of_freedom, freedom[at]);
          followed[static_cast<std::size_t>(j)] = 1;
        }
        for (std::size_t j = 0; j < followed.size(); ++j) {
          if (followed[j]) continue;
          sigma[first + j] = relative * sizes[j];
          freedom[first + j] = of_freedom;
        }
      };
      extend(out.channel, out.channel_freedom);
      extend(out.state_column, out.state_column_freedom);
    }
  }
  return budget;
}

} // namespace kdacheck
