#pragma once
// Laws tried on a kernel with a planted fault and on the same kernel without it.

#include "../localise/localise.hpp"
#include "checked.hpp"

#include <catch2/catch.hpp>
#include <fmt/format.h>

#include <chrono>
#include <map>
#include <set>
#include <string>

namespace kdacheck::tests {

inline void add_to(const TensorView& view, std::int64_t index, float amount) {
  if (view && view.elements() > index) store(view, index, load(view, index) + amount);
}

inline void scale_all(const TensorView& view, float factor) {
  for (std::int64_t i = 0; view && i < view.elements(); ++i) store(view, i, load(view, i) * factor);
}

inline const Kernel& built_in(std::string_view name) {
  for (const Kernel& kernel : built_in_kernels())
    if (kernel.name == name) return kernel;
  throw std::invalid_argument("no such kernel");
}

/// Cases in which the law says that the kernel is wrong, and in which it says that the plain kernel is.
struct Count {
  int broken = 0, false_alarms = 0, decided = 0;
};

inline Count count(std::string_view law, const Kernel& wrong, const char* regime, const Kernel& right) {
  const Property& property = property_named(law);
  static Judge judge;
  Count result;
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    const Recipe recipe = fitted(regime_named(regime)->draw(seed, Tier::quick), wrong.contract);
    const Finding good = checked(right, property, recipe, judge);
    UNSCOPED_INFO("seed " << seed << " right kernel: " << name(good.verdict) << " " << good.detail);
    result.false_alarms += is_failure(good.verdict);
    result.decided += good.verdict == Verdict::passed;
    const Finding bad = checked(wrong, property, recipe, judge);
    UNSCOPED_INFO("seed " << seed << " wrong kernel: " << name(bad.verdict) << " " << bad.detail);
    result.broken += is_failure(bad.verdict);
  }
  return result;
}

/// Stages that failures of laws are expected to be localised to, and how often they were.
struct Stages {
  std::map<std::string_view, Stage> expected;
  std::set<std::string_view> may_be_unclear = {}; ///< two ways contradict each other, or no way is sure
  bool print = false;
  int right = 0, wrong = 0, unclear = 0;

  /// The first failure of the law on the kernel.
  void localise_one(std::string_view law, const Kernel& wrong_kernel, const char* regime) {
    const Property& property = property_named(law);
    static Judge judge;
    for (std::uint64_t seed = 1; seed <= 6; ++seed) {
      const Recipe recipe = fitted(regime_named(regime)->draw(seed, Tier::quick), wrong_kernel.contract);
      if (!is_failure(checked(wrong_kernel, property, recipe, judge).verdict)) continue;
      const auto start = std::chrono::steady_clock::now();
      const Localisation found = localise(wrong_kernel, property, recipe, judge);
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      const Stage due = expected.at(law);
      ++(!found.together.stage ? unclear : found.together.stage == due ? right : wrong);
      if (print)
        fmt::print("{} {} ({}), {:.2f} s: {}\n",
                   !found.together.stage         ? "?    "
                   : found.together.stage == due ? "right"
                                                 : "WRONG",
                   law, name(due), seconds, to_text(found));
      INFO(to_text(found));
      if (!print && (found.together.stage || !may_be_unclear.contains(law))) CHECK(found.together.stage == due);
      if (!print && found.together.grounds.find("bytes past") == std::string::npos && law != "malformed-calls-are-refused")
        CHECK(found.first_wrong.has_value());
      CHECK_FALSE((!found.together.stage && found.together.grounds.empty())); // unclear, and why
      return;
    }
    FAIL("no seed of six shows it");
  }
};

/// Checks that a law catches a kernel, or only notes which laws are checked, or localises what it catches.
struct Catches {
  std::set<std::string>* names = nullptr;
  Stages* stages = nullptr;

  void operator()(std::string_view law, const Kernel& wrong, const char* regime, const Kernel& right) const {
    if (names) {
      names->emplace(law);
      return;
    }
    if (stages) {
      INFO(law << " on " << regime);
      return stages->localise_one(law, wrong, regime);
    }
    INFO(law << " on " << regime);
    const Count seen = count(law, wrong, regime, right);
    CHECK(seen.broken > 0);
    CHECK(seen.false_alarms == 0);
    CHECK(seen.decided > 0);
  }
};

} // namespace kdacheck::tests
