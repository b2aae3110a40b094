#include "enclosure_tally.hpp"
#include "random_problem.hpp"

#include <catch2/catch.hpp>

using namespace kdacheck;
using namespace kdacheck::test;

namespace {

/// Largest sizes of a random problem.
struct Sizes {
  std::int64_t T = 5, K = 3, V = 3;
};

/// Gradients of `count` random problems, at most `per_tensor` elements of each tensor, against derivatives of Arb balls.
Tally gradient_tally(const Way& way, std::uint64_t first, std::uint64_t count, double shrink = 1, std::size_t per_tensor = 3,
                     const Sizes& most = {}) {
  Tally tally;
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    const Problem problem = random_problem(seed, most.T, most.K, most.V);
    REQUIRE(malformed(problem).value_or("") == "");
    const Truth truth = way.gradient(problem);
    std::mt19937_64 bits(seed);
    for (Input input : all_inputs) {
      const std::size_t elements = problem[input].size();
      REQUIRE(truth[input].value.size() == elements);
      REQUIRE(truth[input].radius.size() == elements);
      for (std::size_t i = 0; i < std::min(per_tensor, elements); ++i) {
        const Direction direction{input, bits() % elements};
        // at A_log = -inf the decay is 1 whatever its derivative by exp(A_log)
        const bool dead = input == Input::A_log && std::isinf(problem.A_log[direction.element]);
        const Arb exact = dead ? Arb(0) : arb_forward(problem, &direction).loss.slope;
        tally.count(truth[input], direction.element, exact, "seed " + std::to_string(seed) + ": " + std::string(name(input)), shrink);
      }
    }
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

TEST_CASE("gradients of 1200 random problems lie within their fp64 radius of the truth") {
  check(gradient_tally(fp64_way, 0, 1200), 14000);
}

TEST_CASE("gradients of 800 random problems lie within their double-double radius of the truth") {
  check(gradient_tally(double_double_way, 5000, 800), 8000);
}

TEST_CASE("the same holds over several checkpoints, groups of channels and blocks of columns") {
  for (const Way& way : {fp64_way, double_double_way}) {
    const Tally tally = gradient_tally(way, 60000, 16, 1, 2, {.T = 40, .K = 24, .V = 20});
    CAPTURE(way.name, tally.first, tally.worst);
    CHECK(tally.elements >= 150);
    CHECK(tally.outside == 0);
    CHECK(tally.unknown < tally.elements / 5); // keys of length 30 leave the range of doubles after so many tokens
  }
}

TEST_CASE("gradients of 150 random problems lie within their MPFR radius of the truth") {
  check(gradient_tally(mpfr_way, 6000, 150), 1500);
}

TEST_CASE("gradients of 150 random problems lie within their cpp_bin_float radius of the truth") {
  check(gradient_tally(cpp_bin_float_way, 7000, 150), 1500);
}

TEST_CASE("gradient radii scaled down by 256 are refused") {
  for (const Way& way : {fp64_way, double_double_way}) {
    CAPTURE(way.name);
    CHECK(gradient_tally(way, 9000, 100, 1.0 / 256).outside > 0);
  }
}
