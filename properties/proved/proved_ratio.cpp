#include "proved_ratio.hpp"

#include "../compare.hpp"
#include "proved_bound.hpp"

#include <tuple>

namespace kdacheck {

ProvedCase::ProvedCase(const Contract& contract, const Problem& problem, bool backward)
    : contract_(contract), problem_(problem), truth_((backward ? gradient_truth : forward_truth)(problem, Arithmetic::double_double, 106)),
      backward_(backward) {
  const auto& [B, T, H, HV, K, V] = problem.shape;
  const std::int64_t N = sequence_count(problem);
  budget_.draws = 1;
  budget_.proved = backward ? proved_gradient_bound(contract, problem) : proved_bound(contract, problem);
  // no statistical budget: every group's sigma is 0
  for (Input input : all_inputs) {
    const auto shape = shape_of(input, problem.shape, N);
    const bool single = input == Input::beta || input == Input::A_log || input == Input::dt_bias; // a group each
    const auto groups = static_cast<std::size_t>(shape[0] * shape[1] * shape[2] * (single ? shape[3] : 1));
    GradientBudget& gradient = budget_.gradient[static_cast<std::size_t>(input)];
    if (!truth_[input].empty()) gradient.fine.assign(groups, 0.0), gradient.freedom.assign(groups, 1.0);
  }
  OutputBudget& o = budget_.output;
  for (auto [sigma, freedom, size] : {std::tuple{&o.token, &o.token_freedom, B * T * HV},
                                      {&o.channel, &o.channel_freedom, N * HV * V},
                                      {&o.state_row, &o.state_row_freedom, N * HV * K},
                                      {&o.state_column, &o.state_column_freedom, N * HV * V}}) {
    sigma->assign(static_cast<std::size_t>(size), 0.0);
    freedom->assign(static_cast<std::size_t>(size), 1.0);
  }
}

double ProvedCase::ratio(const Run& run) const {
  return (backward_ ? compare_backward : compare_forward)(contract_, problem_, truth_, budget_, run).proved;
}

} // namespace kdacheck
