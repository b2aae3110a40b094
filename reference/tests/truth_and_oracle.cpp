// Two engines that share no arithmetic: the certified recurrence must enclose what the naive one gives with 100 digits.

#include "../oracle.hpp"
#include "../truth.hpp"
#include "small_problems.hpp"

#include <catch2/catch.hpp>

using namespace kdacheck;

namespace {

/// Elements outside their enclosure, and how many were looked at.
struct Count {
  std::int64_t outside = 0, seen = 0;
};

void compare(const Enclosed& truth, const Digits& witness, Count& count) {
  REQUIRE(truth.value.size() == witness.value.size());
  REQUIRE(truth.radius.size() == witness.value.size());
  for (std::size_t i = 0; i < witness.value.size(); ++i) {
    const double low = (truth.low.empty() ? 0 : truth.low[i]) - witness.low[i];
    const double error = std::fabs((truth.value[i] - witness.value[i]) + low);
    // two doubles hold the witness to 2^-106 of it; the difference above is rounded twice
    const double blur = std::fabs(witness.value[i]) * 0x1p-105 + error * 0x1p-51;
    count.outside += !(error <= truth.radius[i] + blur);
    ++count.seen;
  }
}

} // namespace

TEST_CASE("certified outputs enclose 100 digits for every option") {
  std::uint64_t seed = 700;
  for (const Options& options : every_option())
    for (Arithmetic arithmetic : {Arithmetic::fp64, Arithmetic::double_double}) {
      const Problem problem = make_small({.shape = {.H = 2, .HV = 4, .K = 5, .V = 3}, .options = options, .lengths = {6, 0, 1, 3}}, ++seed);
      const Truth truth = forward_truth(problem, arithmetic);
      const Evaluation witness = evaluate(problem, NumberType::mpfr_100);
      Count count;
      for (Output output : all_outputs) compare(truth[output], witness[output], count);
      INFO(describe(options) << " " << name(arithmetic));
      CHECK(count.outside == 0);
      CHECK(count.seen == 10 * 4 * 3 + 4 * 4 * 5 * 3);
    }
}
