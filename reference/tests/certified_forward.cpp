#include "enclosure_tally.hpp"
#include "random_problem.hpp"

#include <catch2/catch.hpp>

using namespace kdacheck;
using namespace kdacheck::test;

namespace {

void compare(const Enclosed& enclosed, const std::vector<Dual>& exact, Tally& tally, const std::string& place, double shrink) {
  REQUIRE(enclosed.value.size() == exact.size());
  REQUIRE(enclosed.radius.size() == exact.size());
  for (std::size_t i = 0; i < exact.size(); ++i) tally.count(enclosed, i, exact[i].value, place, shrink);
}

/// Every output element of `count` random problems against Arb balls.
Tally forward_tally(const Way& way, std::uint64_t first, std::uint64_t count, double shrink = 1) {
  Tally tally;
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    const Problem problem = random_problem(seed);
    REQUIRE(malformed(problem).value_or("") == "");
    const Truth truth = way.forward(problem);
    const ArbOutputs exact = arb_forward(problem);
    compare(truth.o, exact.o, tally, "seed " + std::to_string(seed) + ": o", shrink);
    compare(truth.final_state, exact.final_state, tally, "seed " + std::to_string(seed) + ": final_state", shrink);
  }
  return tally;
}

void check(const Tally& tally, std::size_t least_elements) {
  CAPTURE(tally.first, tally.worst);
  CHECK(tally.elements >= least_elements);
  CHECK(tally.outside == 0);
  CHECK(tally.unknown == 0);
}

} // namespace

TEST_CASE("every output of 2500 random problems lies within its fp64 radius of the truth") {
  check(forward_tally(fp64_way, 0, 2500), 40000);
}

TEST_CASE("every output of 1500 random problems lies within its double-double radius of the truth") {
  check(forward_tally(double_double_way, 10000, 1500), 20000);
}

TEST_CASE("every output of 300 random problems lies within its MPFR radius of the truth") {
  check(forward_tally(mpfr_way, 30000, 300), 4000);
}

TEST_CASE("every output of 300 random problems lies within its cpp_bin_float radius of the truth") {
  check(forward_tally(cpp_bin_float_way, 40000, 300), 4000);
}

TEST_CASE("radii scaled down by 64 are refused") {
  for (const Way& way : {fp64_way, double_double_way}) {
    CAPTURE(way.name);
    CHECK(forward_tally(way, 20000, 300, 1.0 / 64).outside > 0);
  }
}
