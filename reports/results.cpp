#include "results.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <numeric>

namespace kdacheck {
namespace {

/// Among passed cases the error of a tensor tells more than a law's own figure, which may be near 1 by its nature (the
/// norm of a state that does not decay equals its bound).
bool tells_more(const Finding& left, const Finding& right) {
  const bool both_passed = left.verdict == Verdict::passed && right.verdict == Verdict::passed;
  if (both_passed && left.place.has_value() != right.place.has_value()) return left.place.has_value();
  return is_graver(left, right);
}

/// FNV-1a: the same on every machine.
std::uint64_t hash_of(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

void count(Tally& tally, const CaseResult& result) {
  ++tally.counts[result.finding.verdict];
  tally.drawn += hash_of(std::string_view(result.replay).substr(result.replay.find(':') + 1)); // the same for every kernel
  tally.seconds += result.seconds;
  if (tally.localised.empty()) tally.localised = result.localised;
  if (!tally.worst || tells_more(result.finding, tally.worst->finding)) tally.worst = result;
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
  if (kernel == results.kernels.end())
    kernel = results.kernels.insert(kernel, KernelTally{.name = result.kernel, .module = result.kernel.starts_with("module.")});
  count(kernel->tally, result);
  count(results.groups[{result.kernel, result.property, result.regime}], result);
  if (!result.finding.oracle.empty()) ++results.escalated[result.finding.oracle];
  if (result.finding.verdict == Verdict::not_supported) ++results.not_supported[{result.kernel, result.finding.detail}];
}

Counts total(const Results& results) {
  Counts sum;
  for (const KernelTally& kernel : results.kernels)
    for (Verdict verdict : all_verdicts) sum[verdict] += kernel.tally.counts[verdict];
  return sum;
}

std::string in_short(const Contract& contract) {
  const bool recurrence = contract.order == Order::recurrence;
  std::string text = contract.rules == std::vector{Rule::dplr} ? "DPLR " : "";
  std::string operands(name(contract.operands));
  if (contract.scores != contract.operands) operands += "/" + std::string(name(contract.scores));
  const bool plain = contract.operands == Format::fp32 && contract.scores == Format::fp32;
  if (contract.input != contract.operands && !(recurrence && plain)) text += fmt::format("{} in, ", name(contract.input));
  if (recurrence && plain) operands = name(contract.input);
  text += operands + (plain || recurrence ? "" : " mma");
  if (contract.accumulate != Format::fp32) text += fmt::format(", {} sums", name(contract.accumulate));
  if (contract.state != Format::fp32) text += fmt::format(", {} state", name(contract.state));
  text += recurrence ? ", recurrence" : fmt::format(", C={}", contract.chunk);
  if (contract.order == Order::wy) text += ", wy";
  if (contract.state_v_first) text += ", V-first";
  return text;
}

int exit_status(const Results& results) {
  const Counts counts = total(results);
  if (counts.failures() > 0) return 1;
  if (results.outcome.stopped) return 4;
  return counts[Verdict::passed] == 0 ? 5 : 0;
}

} // namespace kdacheck
