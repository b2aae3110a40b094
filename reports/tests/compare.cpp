#include "../compare.hpp"
#include "../report_json.hpp"
#include "sample_results.hpp"

#include <catch2/catch.hpp>

#include <cmath>
#include <limits>

using namespace kdacheck;
using Catch::Contains;

namespace {

/// One kernel with a group per figure, all passed.
Results with_errors(const std::vector<double>& figures) {
  Results results;
  for (std::size_t i = 0; i < figures.size(); ++i)
    add(results, sample_case("k", Verdict::passed, figures[i], "regime-" + std::to_string(i)));
  return results;
}

Results with_verdict(Verdict verdict) {
  Results results;
  add(results, sample_case("k", verdict, 0.5));
  return results;
}

} // namespace

TEST_CASE("a run is no worse than itself, also when read back from its report") {
  const Results results = sample_results();
  CHECK(exit_status(compare(results, results)) == 0);
  const Comparison comparison = compare(results, results_from_report_json(to_report_json(results), "x"));
  CHECK(exit_status(comparison) == 0);
  CHECK(comparison.same_cases);
  CHECK(comparison.verdicts.empty());
  CHECK(comparison.groups == results.groups.size());
}

TEST_CASE("a new failure, a graver one and lost coverage are worse; a repaired one is not") {
  const auto status = [](Verdict before, Verdict after) { return exit_status(compare(with_verdict(before), with_verdict(after))); };
  for (Verdict verdict : all_verdicts) CHECK(status(Verdict::passed, verdict) == (verdict == Verdict::passed ? 0 : 1));
  for (Verdict verdict : all_verdicts) CHECK(status(verdict, Verdict::passed) == 0);
  CHECK(status(Verdict::failed_statistical, Verdict::failed_proved) == 1);
  CHECK(status(Verdict::failed_proved, Verdict::failed_statistical) == 0);
  CHECK(status(Verdict::not_supported, Verdict::failed_property) == 1);
  CHECK(status(Verdict::failed_proved, Verdict::crashed) == 1);
}

TEST_CASE("of a group that fails as before, fewer cases that pass are worse; of another draw they are not") {
  const auto cases = [](std::initializer_list<Verdict> verdicts) {
    Results results;
    for (const Verdict verdict : verdicts) add(results, sample_case("k", verdict, is_failure(verdict) ? 2 : 0.5));
    return results;
  };
  constexpr Verdict failed = Verdict::failed_property, passed = Verdict::passed;
  const Results before = cases({failed, passed, passed});
  Results after = cases({failed, failed, passed});
  const Comparison comparison = compare(before, after);
  CHECK(exit_status(comparison) == 1);
  CHECK_THAT(to_text(comparison), Contains("WORSE   1 passed in fewer cases: k  agrees-with-the-oracle") && Contains("2 -> 1"));
  CHECK(exit_status(compare(after, before)) == 0);
  after.context.seed += 1;
  CHECK(exit_status(compare(before, after)) == 0);
}

TEST_CASE("errors that grow in every one of many groups are worse, in half of them they are chance") {
  std::vector<double> before(40, 0.5), doubled(40, 1.0), mixed(40);
  for (std::size_t i = 0; i < 40; ++i) mixed[i] = i % 2 ? 1.0 : 0.25;
  CHECK(exit_status(compare(with_errors(before), with_errors(doubled))) == 1);
  CHECK(exit_status(compare(with_errors(doubled), with_errors(before))) == 0);
  CHECK(exit_status(compare(with_errors(before), with_errors(mixed))) == 0);
  const ErrorChange change = compare(with_errors(before), with_errors(mixed)).errors.at(0);
  CHECK(change.grown == 20);
  CHECK(change.shrunk == 20);
  CHECK(change.lower_quartile == Approx(0.5));
  CHECK(change.upper_quartile == Approx(2.0));
}

TEST_CASE("a growth of a hundredth everywhere, and a doubling in three groups, are not called worse") {
  CHECK(exit_status(compare(with_errors(std::vector<double>(40, 0.5)), with_errors(std::vector<double>(40, 0.505)))) == 0);
  CHECK(exit_status(compare(with_errors({0.1, 0.1, 0.1}), with_errors({0.2, 0.2, 0.2}))) == 0);
}

TEST_CASE("the chance is the binomial tail") {
  CHECK(compare(with_errors({1, 1, 1}), with_errors({2, 2, 2})).errors.at(0).chance == Approx(0.125));
  CHECK(compare(with_errors({1, 1, 1, 1}), with_errors({2, 2, 2, 0.5})).errors.at(0).chance == Approx(5.0 / 16));
  CHECK(compare(with_errors({1, 1}), with_errors({1, 1})).errors.at(0).chance == Approx(1.0));
}

TEST_CASE("laws that hold exactly have no ratio") {
  const Comparison comparison = compare(with_errors({0, 0, 0.5}), with_errors({0, 0.5, 0.5}));
  CHECK(comparison.errors.at(0).groups == 1);
}

TEST_CASE("runs without a common group cannot be compared") {
  Results other;
  for (const char* kernel : {"other", "another"}) add(other, sample_case(kernel, Verdict::passed, 0.5));
  const Comparison comparison = compare(with_errors({0.5}), other);
  CHECK(exit_status(comparison) == 5);
  CHECK_THAT(to_text(comparison),
             Contains("judged only in the first: k") && Contains("judged only in the second: other") && Contains("NOTHING TO COMPARE"));
}

TEST_CASE("what the second run does not judge any more is worse") {
  Results both = with_errors({0.5, 0.4});
  add(both, sample_case("other", Verdict::passed, 0.5));
  const Comparison kernel_gone = compare(both, with_errors({0.5, 0.4}));
  CHECK(exit_status(kernel_gone) == 1);
  CHECK_THAT(to_text(kernel_gone), Contains("WORSE   judged only in the first: other") && Contains("1 kernels not judged any more"));
  CHECK(exit_status(compare(with_errors({0.5, 0.4}), both)) == 0);
  Results refused = with_errors({0.5, 0.4}); // announced, but not judged
  add(refused, sample_case("other", Verdict::not_supported, 0, "odd-sizes"));
  CHECK(compare(both, refused).kernels_gone == std::vector<std::string>{"other"});

  const Comparison half = compare(with_errors({0.5, 0.4, 0.3, 0.2}), with_errors({0.5, 0.4}));
  CHECK(exit_status(half) == 1);
  CHECK(half.groups_gone.size() == 2);
  CHECK_THAT(to_text(half),
             Contains("WORSE   2 kernel x property x regime only in the first: k  agrees-with-the-oracle  [regime-2], ") &&
                 Contains("WORSE: 0 verdicts, 0 kernels with larger errors, 2 kernel x property x regime not judged any more"));

  Results stopped = with_errors({0.5});
  stopped.outcome.stopped = true;
  CHECK(exit_status(compare(with_errors({0.5}), stopped)) == 1);
  CHECK_THAT(to_text(compare(with_errors({0.5}), stopped)),
             Contains("the second run was stopped early") && Contains("the second run incomplete"));
  CHECK(exit_status(compare(stopped, with_errors({0.5}))) == 0);
  CHECK_THAT(to_text(compare(stopped, with_errors({0.5}))), Contains("the first run was stopped early"));
}

TEST_CASE("of two runs that were both stopped early what one of them did not reach is said and is not worse") {
  Results before = with_errors({0.5, 0.4, 0.3}), after = with_errors({0.5});
  add(before, sample_case("k", Verdict::passed, 0.2, "regime-0"));
  add(before, sample_case("other", Verdict::passed, 0.5));
  CHECK(exit_status(compare(before, after)) == 1);
  after.outcome.stopped = true;
  CHECK(exit_status(compare(before, after)) == 1);
  before.outcome.stopped = true;
  const Comparison comparison = compare(before, after);
  CHECK(exit_status(comparison) == 0);
  const std::string text = to_text(comparison);
  CHECK_FALSE(Catch::contains(text, "WORSE"));
  CHECK_THAT(text, Contains("both runs were stopped early: what one of them did not reach is not compared") &&
                       Contains("not compared: judged only in the first: other") &&
                       Contains("not compared: 2 kernel x property x regime only in the first: k  agrees-with-the-oracle  [regime-1], ") &&
                       Contains("not compared: 1 judged in fewer cases: k  agrees-with-the-oracle  [regime-0] 2 -> 1"));
  add(after, sample_case("k", Verdict::failed_property, 3, "regime-0")); // what both reached is compared
  const Comparison failed = compare(before, after);
  CHECK(exit_status(failed) == 1);
  CHECK_THAT(to_text(failed), Contains("WORSE: 1 verdicts, 0 kernels with larger errors\n"));
  Results further = with_errors(std::vector<double>(40, 0.5)), little = further;
  for (int i = 0; i < 40; ++i) add(further, sample_case("k", Verdict::passed, 0.9, "regime-" + std::to_string(i))); // a second round
  for (auto& [key, tally] : further.groups) tally.drawn += 1;
  further.outcome.stopped = little.outcome.stopped = true;
  CHECK(exit_status(compare(little, further)) == 0);
}

TEST_CASE("a refusal of another draw is no loss while the kernel is still judged by that law") {
  Results before = with_errors({0.5, 0.4}), after = with_errors({0.5});
  CaseResult refused = sample_case("k", Verdict::not_supported, 0, "regime-1");
  add(after, refused);
  CHECK(exit_status(compare(before, after)) == 1); // the same case
  after = with_errors({0.5});
  refused.replay += "-of-another-seed";
  add(after, refused);
  CHECK(exit_status(compare(before, after)) == 0);
  CHECK(compare(before, after).verdicts.size() == 1);
  Results nowhere;
  for (const char* regime : {"regime-0", "regime-1"}) {
    refused.regime = regime;
    add(nowhere, refused);
  }
  add(nowhere, sample_case("another", Verdict::passed, 0.5));
  CHECK(exit_status(compare(before, nowhere)) == 1);
}

TEST_CASE("two runs of one kernel each are compared whatever its name") {
  const auto named = [](const char* kernel, const std::vector<double>& figures) {
    Results results;
    for (std::size_t i = 0; i < figures.size(); ++i) {
      CaseResult result = sample_case(kernel, Verdict::passed, figures[i], "regime-" + std::to_string(i));
      result.replay = std::string(kernel) + ":agrees-with-the-oracle:recipe-" + std::to_string(i);
      add(results, result);
    }
    return results;
  };
  const Comparison alike = compare(named("a", {0.5, 0.04, 0.3}), named("b", {0.5, 0.05}));
  CHECK(alike.stands_for == "b");
  CHECK(alike.groups == 2);
  CHECK(alike.groups_only_in_first == 1);
  CHECK(exit_status(alike) == 0);
  CHECK_THAT(to_text(alike), Contains("one kernel each: b of the second run is compared with that of the first"));
  CHECK(exit_status(compare(named("a", {0.5, 0.04}), named("b", {0.5, 0.8}))) == 1);
  Results two = named("b", {0.5, 0.04});
  add(two, sample_case("c", Verdict::passed, 0.5));
  CHECK(compare(named("a", {0.5, 0.04}), two).stands_for.empty());
}

TEST_CASE("fewer judged cases of a group are worse where both runs drew the same") {
  Results two = with_errors({0.5}), one = with_errors({0.5});
  add(two, sample_case("k", Verdict::passed, 0.25, "regime-0"));
  add(one, sample_case("k", Verdict::not_supported, 0, "regime-0"));
  const Comparison thinner = compare(two, one);
  CHECK(exit_status(thinner) == 1);
  CHECK_THAT(to_text(thinner), Contains("1 judged in fewer cases: k  agrees-with-the-oracle  [regime-0] 2 -> 1"));
  CHECK(exit_status(compare(one, two)) == 0);
  one.context.seed = 2;
  CHECK(exit_status(compare(two, one)) == 0);
}

TEST_CASE("one figure that grows far more than the kernel's others move is worse, with its verdict kept") {
  std::vector<double> before(40, 0.04), others(40), one;
  for (std::size_t i = 0; i < 40; ++i) others[i] = i % 2 ? 0.05 : 0.032; // a quarter up, a quarter down: chance
  one = others;
  one[7] = 0.8;
  CHECK(exit_status(compare(with_errors(before), with_errors(others))) == 0);
  const Comparison grown = compare(with_errors(before), with_errors(one));
  CHECK(exit_status(grown) == 1);
  REQUIRE(grown.growths.size() == 1);
  CHECK(grown.growths[0].key.regime == "regime-7");
  CHECK(grown.growths[0].noise == Approx(1.25));
  CHECK(grown.growths[0].chance == Approx(40 * std::exp(-std::log(20) / std::log(1.25)) / 2));
  CHECK_THAT(to_text(grown),
             Contains("WORSE   k  agrees-with-the-oracle  [regime-7]: error / bound 0.04 -> 0.8; the 20 of the kernel's figures that "
                      "shrank did so 1.2 times in the geometric mean; chance of so much growth at most "));
  const Comparison alone = compare(with_errors({0.04, 0.5}), with_errors({0.8, 0.49})); // one shrank, by too little to be spoken of
  REQUIRE(alone.growths.size() == 1);
  CHECK(alone.growths[0].shrunk == 0);
  CHECK_THAT(to_text(alone),
             Contains("-> 0.8; too few of the kernel's figures shrank, or by too little, to tell how far chance goes: 1.2 times "
                      "is taken; chance"));
  CHECK(exit_status(compare(with_errors(one), with_errors(before))) == 0);

  std::vector<double> wild = one; // the same growth among others that move by as much is chance
  for (std::size_t i = 0; i < 40; i += 2) wild[i] = 0.01;
  CHECK(compare(with_errors(before), with_errors(wild)).growths.empty());
  std::vector<double> many = before; // growths do not hide one another
  for (std::size_t i = 0; i < 20; ++i) many[i] = 0.8;
  CHECK(compare(with_errors(before), with_errors(many)).growths.size() == 20);
  Results other_draw = with_errors(one);
  for (auto& [key, tally] : other_draw.groups) tally.drawn += 1;
  CHECK(compare(with_errors(before), other_draw).growths.empty());
}

TEST_CASE("a lone figure grows beyond chance by a factor, not by a little, and what no bound tells apart does not grow") {
  const auto growths = [](double before, double after) {
    return compare(with_errors({before, 0.5}), with_errors({after, 0.5})).growths.size();
  };
  CHECK(growths(0.04, 0.8) == 1);
  CHECK(growths(0.4, 0.8) == 0);
  CHECK(growths(0.1, 0.4) == 1);
  CHECK(growths(1e-9, 0.009) == 0);
  CHECK(growths(0, 0.5) == 1);
}

TEST_CASE("an error / bound that is no number any more is worse") {
  const double none = std::numeric_limits<double>::quiet_NaN();
  const Comparison lost = compare(with_errors({0.5, 0.4}), with_errors({0.5, none}));
  CHECK(exit_status(lost) == 1);
  CHECK_THAT(to_text(lost), Contains("[regime-1]: error / bound 0.4 -> no number") && Contains(", 1 errors that are no number"));
  CHECK_FALSE(Catch::contains(to_text(lost), "beyond chance"));
  CHECK(exit_status(compare(with_errors({0.5, none}), with_errors({0.5, none}))) == 0);
  CHECK(exit_status(compare(with_errors({0.5, none}), with_errors({0.5, 0.4}))) == 0);
}

TEST_CASE("the text lists worse verdicts first and says how the errors moved") {
  Results before = sample_results(), after = sample_results();
  add(after, sample_case("cpu.right", Verdict::failed_proved, 20));
  add(before, sample_case("a", Verdict::crashed, 0));
  add(after, sample_case("a", Verdict::passed, 0.5));
  before.groups.erase({"a", "agrees-with-the-oracle", "slow-decay"});
  add(before, sample_case("a", Verdict::failed_proved, 3));
  const std::string text = to_text(compare(before, after));
  CHECK_THAT(text, Contains("WORSE   cpu.right  agrees-with-the-oracle  [slow-decay]: passed -> FAILED (proved)"));
  CHECK_THAT(text, Contains("change  a  agrees-with-the-oracle  [slow-decay]: FAILED (proved) -> passed"));
  CHECK(text.find("WORSE   cpu.right") < text.find("change  a"));
  CHECK_THAT(text, Contains("WORSE: 1 verdicts, 0 kernels with larger errors"));
}
