#include "../compare.hpp"
#include "../report_json.hpp"
#include "sample_results.hpp"

#include <catch2/catch.hpp>

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
  add(other, sample_case("other", Verdict::passed, 0.5));
  const Comparison comparison = compare(with_errors({0.5}), other);
  CHECK(exit_status(comparison) == 5);
  CHECK_THAT(to_text(comparison),
             Contains("only in the first: k") && Contains("only in the second: other") && Contains("NOTHING TO COMPARE"));
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
