#include "enclosure_tally.hpp"
#include "random_problem.hpp"

#include <catch2/catch.hpp>

using namespace kdacheck;
using namespace kdacheck::test;

namespace {

void compare(const Enclosed& enclosed, const std::vector<Dual>& exact, Tally& tally, double shrink) {
  REQUIRE(enclosed.value.size() == exact.size());
  REQUIRE(enclosed.radius.size() == exact.size());
  for (std::size_t i = 0; i < exact.size(); ++i) tally.count(enclosed, i, exact[i].value, shrink);
}

Tally forward_tally(Arithmetic arithmetic, std::uint64_t first, std::uint64_t count, double shrink = 1) {
  Tally tally;
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    const Problem problem = random_problem(seed);
    REQUIRE(malformed(problem).value_or("") == "");
    const Truth truth = forward_truth(problem, arithmetic);
    const ArbOutputs exact = arb_forward(problem);
    const std::size_t before = tally.outside;
    compare(truth.o, exact.o, tally, shrink);
    compare(truth.final_state, exact.final_state, tally, shrink);
    if (tally.outside != before && shrink == 1) UNSCOPED_INFO("first outside: seed " << seed);
  }
  return tally;
}

} // namespace

TEST_CASE("every output of 3000 random problems lies within its fp64 radius of the truth") {
  const Tally tally = forward_tally(Arithmetic::fp64, 0, 3000);
  UNSCOPED_INFO("elements " << tally.elements << ", largest error / radius " << tally.worst);
  CHECK(tally.elements > 50000);
  CHECK(tally.outside == 0);
  CHECK(tally.unknown == 0);
}

TEST_CASE("every output of 2000 random problems lies within its double-double radius of the truth") {
  const Tally tally = forward_tally(Arithmetic::double_double, 10000, 2000);
  UNSCOPED_INFO("elements " << tally.elements << ", largest error / radius " << tally.worst);
  CHECK(tally.outside == 0);
  CHECK(tally.unknown == 0);
}

TEST_CASE("radii scaled down by 64 are refused") {
  CHECK(forward_tally(Arithmetic::fp64, 20000, 300, 1.0 / 64).outside > 0);
  CHECK(forward_tally(Arithmetic::double_double, 20000, 300, 1.0 / 64).outside > 0);
}
