#include "results.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <numeric>

namespace kdacheck {
namespace {

void count(Tally& tally, const CaseResult& result) {
  ++tally.counts[result.finding.verdict];
  tally.seconds += result.seconds;
  if (!tally.worst || is_graver(result.finding, tally.worst->finding)) tally.worst = result;
}

} // namespace

std::size_t Counts::cases() const { return std::accumulate(by_verdict.begin(), by_verdict.end(), std::size_t{0}); }

std::size_t Counts::failures() const {
  std::size_t sum = 0;
  for (Verdict verdict : all_verdicts)
    if (is_failure(verdict)) sum += (*this)[verdict];
  return sum;
}

void add(Results& results, const CaseResult& result) {
  auto kernel = std::ranges::find(results.kernels, result.kernel, &KernelTally::name);
  if (kernel == results.kernels.end()) kernel = results.kernels.insert(kernel, KernelTally{.name = result.kernel});
  count(kernel->tally, result);
  count(results.groups[{result.kernel, result.property, result.regime}], result);
  if (result.finding.verdict == Verdict::not_supported) ++results.not_supported[{result.kernel, result.finding.detail}];
}

Counts total(const Results& results) {
  Counts sum;
  for (const KernelTally& kernel : results.kernels)
    for (Verdict verdict : all_verdicts) sum[verdict] += kernel.tally.counts[verdict];
  return sum;
}

std::string in_short(const Contract& contract) {
  const std::string tail = contract.order == Order::recurrence ? ", recurrence" : fmt::format(", C={}", contract.chunk);
  if (contract.input == contract.operands && contract.input == contract.scores && contract.input == contract.accumulate &&
      contract.input == contract.state)
    return fmt::format("{} throughout{}", name(contract.input), tail);
  std::string text = fmt::format("{} in", name(contract.input));
  if (contract.order != Order::recurrence) text += fmt::format(", {} mma", name(contract.operands));
  if (contract.scores != contract.operands) text += fmt::format(", {} scores", name(contract.scores));
  if (contract.accumulate != Format::fp32) text += fmt::format(", {} sums", name(contract.accumulate));
  return text + fmt::format(", {} state{}", name(contract.state), tail);
}

int exit_status(const Results& results) {
  const Counts counts = total(results);
  if (counts.failures() > 0) return 1;
  if (results.outcome.stopped) return 4;
  return counts[Verdict::passed] == 0 ? 5 : 0;
}

} // namespace kdacheck
