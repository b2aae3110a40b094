#include "whole_module.hpp"

#include <utility>

namespace kdacheck {
namespace {

template <class Check> Finding gravest_of(std::span<const ModuleLaw> laws, Check&& check) {
  Finding gravest{.verdict = Verdict::not_supported, .bound_util = 0, .place = {}, .detail = "no law applies to the case", .metrics = {}};
  for (const ModuleLaw& law : laws) {
    Finding finding = check(law);
    if (finding.verdict == Verdict::not_supported) continue;
    if (is_failure(finding.verdict)) finding.detail = law.name + ": " + finding.detail;
    gravest = gravest.verdict == Verdict::not_supported ? std::move(finding) : graver(std::move(gravest), std::move(finding));
  }
  return gravest;
}

} // namespace

Finding expect_right(const ModuleSuite& suite, std::string_view regime, std::uint64_t seed, std::string_view fault) {
  return gravest_of(suite.laws, [&](const ModuleLaw& law) { return run_module_case(suite, law, regime, seed, fault).finding; });
}

Finding expect_right(const ModuleCase& one, std::span<const ModuleLaw> laws, std::uint64_t seed) {
  return gravest_of(laws, [&](const ModuleLaw& law) { return checked(law, one, seed); });
}

} // namespace kdacheck
