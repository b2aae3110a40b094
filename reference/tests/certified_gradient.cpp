#include "enclosure_tally.hpp"
#include "random_problem.hpp"

#include <catch2/catch.hpp>

using namespace kdacheck;
using namespace kdacheck::test;

namespace {

/// Every gradient of `count` random problems (at most `per_tensor` elements of each tensor) against derivatives of Arb balls.
Tally gradient_tally(Arithmetic arithmetic, std::uint64_t first, std::uint64_t count, double shrink = 1, std::size_t per_tensor = 3) {
  Tally tally;
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    const Problem problem = random_problem(seed, 5, 3, 3);
    REQUIRE(malformed(problem).value_or("") == "");
    const Truth truth = gradient_truth(problem, arithmetic);
    std::mt19937_64 bits(seed);
    for (Input input : all_inputs) {
      const std::size_t elements = problem[input].size();
      REQUIRE(truth[input].value.size() == elements);
      REQUIRE(truth[input].radius.size() == elements);
      for (std::size_t i = 0; i < std::min(per_tensor, elements); ++i) {
        const Direction direction{input, bits() % elements};
        const bool dead = input == Input::A_log && std::isinf(problem.A_log[direction.element]);
        const Arb exact = dead ? Arb(0) : arb_forward(problem, &direction).loss.slope;
        const std::size_t before = tally.outside;
        tally.count(truth[input], direction.element, exact, shrink);
        if (tally.outside != before && shrink == 1) UNSCOPED_INFO("outside: seed " << seed << ", gradient of " << name(input));
      }
    }
  }
  return tally;
}

} // namespace

TEST_CASE("gradients of 700 random problems lie within their fp64 radius of the truth") {
  const Tally tally = gradient_tally(Arithmetic::fp64, 0, 700);
  UNSCOPED_INFO("elements " << tally.elements << ", largest error / radius " << tally.worst);
  CHECK(tally.elements > 8000);
  CHECK(tally.outside == 0);
  CHECK(tally.unknown == 0);
}

TEST_CASE("gradients of 500 random problems lie within their double-double radius of the truth") {
  const Tally tally = gradient_tally(Arithmetic::double_double, 5000, 500);
  UNSCOPED_INFO("elements " << tally.elements << ", largest error / radius " << tally.worst);
  CHECK(tally.outside == 0);
  CHECK(tally.unknown == 0);
}

TEST_CASE("gradient radii scaled down by 256 are refused") {
  CHECK(gradient_tally(Arithmetic::fp64, 9000, 100, 1.0 / 256).outside > 0);
  CHECK(gradient_tally(Arithmetic::double_double, 9000, 100, 1.0 / 256).outside > 0);
}
