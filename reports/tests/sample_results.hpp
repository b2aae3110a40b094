#pragma once
// Results with one group of every verdict, for the tests of the writers.

#include "../results.hpp"

#include <limits>
#include <string>

namespace kdacheck {

inline CaseResult sample_case(std::string kernel, Verdict verdict, double bound_util, std::string regime = "slow-decay") {
  CaseResult result;
  result.kernel = std::move(kernel);
  result.property = "agrees-with-the-oracle";
  result.regime = std::move(regime);
  result.replay = "TOKEN-" + result.kernel + "-" + result.regime;
  result.finding.verdict = verdict;
  result.finding.bound_util = bound_util;
  result.seconds = 0.25;
  if (is_failure(verdict)) {
    result.finding.place = Place{.tensor = "final_state", .sequence = 0, .head = 1, .channel = 5, .row = 3};
    result.finding.detail = "error 1e-3 where 1e-4 is the bound";
  }
  if (verdict == Verdict::not_supported) result.finding.detail = "K=60 is not in 16..256/16";
  return result;
}

inline Results sample_results() {
  Results results;
  results.context = {.host = "host",
                     .cpu = "cpu",
                     .threads = 2,
                     .gpu = "",
                     .driver = "",
                     .commit = "0123456789ab",
                     .compiler = "g++ 12",
                     .build = "Release",
                     .program = "abcdef",
                     .started = "2026-01-31T12:00:00Z",
                     .command = "kdacheck verify",
                     .tier = "quick",
                     .seed = 18446744073709551615u};
  results.kernels.push_back({.name = "cpu.right", .contract = "chunk=16", .in_short = "fp32 throughout, C=16"});
  results.kernels.push_back({.name = "cpu.wrong", .contract = "input=bf16", .in_short = "bf16 in, fp32 mma, fp32 state, C=64"});
  results.kernels.push_back({.name = "cpu.idle", .contract = "chunk=32", .in_short = "fp32 throughout, C=32"});
  results.wall_seconds = 1.5;
  add(results, sample_case("cpu.right", Verdict::passed, 0.25));
  add(results, sample_case("cpu.right", Verdict::passed, 0.75));
  add(results, sample_case("cpu.right", Verdict::not_supported, 0, "odd-sizes"));
  add(results, sample_case("cpu.wrong", Verdict::passed, 0.5));
  add(results, sample_case("cpu.wrong", Verdict::failed_proved, 13.25));
  add(results, sample_case("cpu.wrong", Verdict::failed_statistical, 40, "fast-decay"));
  add(results, sample_case("cpu.wrong", Verdict::failed_property, std::numeric_limits<double>::infinity(), "nan-keys"));
  add(results, sample_case("cpu.wrong", Verdict::crashed, 0, "empty-sequences"));
  add(results, sample_case("cpu.wrong", Verdict::timed_out, 0, "long"));
  add(results, sample_case("cpu.wrong", Verdict::inconclusive, 0.9, "no-decay"));
  return results;
}

} // namespace kdacheck
