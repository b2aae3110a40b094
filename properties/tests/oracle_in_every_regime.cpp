// The oracle's radii in every regime that kernels are judged in, on cases small enough for Arb balls of 1100 bits: outputs, states and
// gradients, in both tiers that verdicts start from. (Random problems of every kind, and the other tiers: reference/tests/certified_*.cpp.)

#include "../../reference/tests/enclosure_tally.hpp"
#include "../cases/recipe.hpp"
#include "drawn_problem.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <string>

using namespace kdacheck;
using namespace kdacheck::test;

namespace {

constexpr std::uint64_t seeds = 12;

/// A case of the regime with few tokens, channels and heads, and a loss on every output: the regime's own, or a dense one.
Problem small_case(const Regime& regime, std::uint64_t seed, const Contract& contract) {
  Recipe recipe = regime.draw(seed, Tier::quick);
  recipe.shape.H = std::min<std::int64_t>(recipe.shape.H, 2);
  recipe.shape.HV = recipe.shape.H * std::min<std::int64_t>(recipe.shape.HV / std::max<std::int64_t>(recipe.shape.H, 1), 2);
  recipe.shape.B = std::min<std::int64_t>(recipe.shape.B, 2);
  recipe = fitted(recipe, contract);
  if (recipe.loss == LossPattern::none) recipe.loss = LossPattern::everywhere;
  return make_problem(recipe, {});
}

/// What is true of a problem: outputs, and the derivative by one element of every tensor that it has.
struct Exact {
  ArbOutputs outputs;
  struct Slope {
    Direction direction;
    Arb slope;
  };
  std::vector<Slope> slopes;

  Exact(const Problem& problem, std::uint64_t seed) : outputs(arb_forward(problem)) {
    for (Input input : all_inputs) {
      const std::size_t elements = problem[input].size();
      if (elements == 0) continue;
      const Direction direction{input,
                                static_cast<std::size_t>(scatter(seed * all_inputs.size() + static_cast<std::uint64_t>(input)) % elements)};
      // at A_log = -inf the decay is 1 whatever its derivative by exp(A_log)
      const bool dead = input == Input::A_log && std::isinf(problem.A_log[direction.element]);
      slopes.push_back({direction, dead ? Arb(0) : arb_forward(problem, &direction).loss.slope});
    }
  }
};

void compare(const Truth& truth, const Problem& problem, const Exact& exact, Tally& tally) {
  const auto outputs = [&](Output output, const std::vector<Dual>& numbers) {
    REQUIRE(truth[output].value.size() == numbers.size());
    REQUIRE(truth[output].radius.size() == numbers.size());
    for (std::size_t i = 0; i < numbers.size(); ++i) tally.count(truth[output], i, numbers[i].value, std::string(name(output)));
  };
  outputs(Output::o, exact.outputs.o);
  outputs(Output::final_state, exact.outputs.final_state);
  for (Input input : all_inputs) {
    REQUIRE(truth[input].value.size() == problem[input].size());
    REQUIRE(truth[input].radius.size() == problem[input].size());
  }
  for (const auto& [direction, slope] : exact.slopes)
    tally.count(truth[direction.input], direction.element, slope, "d" + std::string(name(direction.input)));
}

} // namespace

TEST_CASE("outputs, states and gradients of every regime lie within their radii, in fp64 and in double-double") {
  const auto parsed = parse_contract("rule=kda,dplr gates=log_decay,softplus,bounded,sigmoid,absent betas=value,sigmoid,twice_sigmoid "
                                     "l2norm=both beta_max=2 K=2..6 V=1..5 T=0..9");
  REQUIRE(parsed.contract);
  std::size_t cases = 0;
  for (const Regime& regime : regimes())
    for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
      const Problem problem = small_case(regime, seed, *parsed.contract);
      const Exact exact(problem, seed);
      for (Arithmetic arithmetic : {Arithmetic::fp64, Arithmetic::double_double}) {
        Tally tally;
        compare(gradient_truth(problem, arithmetic), problem, exact, tally);
        INFO(regime.name << ", seed " << seed << ", " << name(arithmetic) << ": " << tally.first << ", " << tally.worst
                         << " of the radius");
        CHECK(tally.elements > 0);
        CHECK(tally.outside == 0);
        CHECK(tally.unknown == 0);
        ++cases;
      }
    }
  CHECK(cases == 2 * seeds * regimes().size());
}
