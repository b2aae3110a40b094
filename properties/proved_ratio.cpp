#include "proved_ratio.hpp"

#include "compare.hpp"
#include "proved_bound.hpp"

#include <tuple>

namespace kdacheck {

ProvedCase::ProvedCase(const Contract& contract, const Problem& problem)
    : contract_(contract), problem_(problem), truth_(forward_truth(problem, Arithmetic::double_double)) {
  const auto& [B, T, H, HV, K, V] = problem.shape;
  const std::int64_t N = sequence_count(problem);
  budget_.draws = 1;
  budget_.proved = proved_bound(contract, problem);
  // no statistical budget: every group's sigma is 0
  OutputBudget& o = budget_.output;
  for (auto [sigma, freedom, size] : {std::tuple{&o.token, &o.token_freedom, B * T * HV},
                                      {&o.channel, &o.channel_freedom, N * HV * V},
                                      {&o.state_row, &o.state_row_freedom, N * HV * K},
                                      {&o.state_column, &o.state_column_freedom, N * HV * V}}) {
    sigma->assign(static_cast<std::size_t>(size), 0.0);
    freedom->assign(static_cast<std::size_t>(size), 1.0);
  }
}

double ProvedCase::ratio(const Run& run) const { return compare_forward(contract_, problem_, truth_, budget_, run).proved; }

} // namespace kdacheck
