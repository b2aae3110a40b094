#include "suites.hpp"

#include <chrono>
#include <exception>
#include <fmt/core.h>
#include <limits>

namespace kdacheck {

std::span<const ModuleSuite> module_suites() {
  static const std::vector<ModuleSuite> all{gating_suite(),    state_manager_suite(), transition_suite(), general_transition_suite(),
                                            chunkwise_suite(), chunk_parts_suite(),   kda_layer_suite(),  mla_suite(),
                                            hybrid_suite()};
  return all;
}

namespace {

Finding thrown(const std::exception& error) {
  return {.verdict = Verdict::crashed,
          .bound_util = std::numeric_limits<double>::infinity(),
          .place = {},
          .detail = fmt::format("it threw: {}", error.what()),
          .metrics = {}};
}

} // namespace

Finding checked(const ModuleLaw& law, const ModuleCase& one, std::uint64_t seed) try {
  if (law.backward && !one.module.backward)
    return {.verdict = Verdict::not_supported, .place = {}, .detail = "the module has no backward pass", .metrics = {}};
  return law.check(one, seed);
} catch (const std::exception& error) {
  return thrown(error);
}

ModuleCaseResult run_module_case(const ModuleSuite& suite, const ModuleLaw& law, std::string_view regime, std::uint64_t seed,
                                 std::string_view fault) {
  const auto started = std::chrono::steady_clock::now();
  ModuleCaseResult result{
      .module = suite.name, .law = law.name, .regime = std::string(regime), .fault = std::string(fault), .seed = seed, .finding = {}};
  try {
    ModuleCase drawn = suite.draw(regime, seed);
    drawn.fault = fault;
    if (!fault.empty() && drawn.planted) drawn.module = drawn.planted(fault);
    result.finding = checked(law, drawn, seed);
  } catch (const std::exception& error) {
    result.finding = thrown(error);
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return result;
}

} // namespace kdacheck
