#include "../cases/generate.hpp"

#include <rapidcheck/catch.h>

using namespace kdacheck;

namespace {

Recipe complicated() {
  Recipe recipe = regime_named("near-identical-keys")->draw(0, Tier::quick);
  recipe.shape = {3, 150, 2, 4, 48, 40};
  recipe.options.gate = GateForm::bounded;
  recipe.options.beta = BetaForm::twice_sigmoid;
  recipe.options.l2norm = true;
  recipe.values = ValuePattern::converged;
  recipe.state = StatePattern::warm;
  recipe.loss = LossPattern::single_head;
  recipe.seed = 123456789;
  return recipe;
}

Recipe minimal(const Recipe& from, const std::function<bool(const Recipe&)>& fails) {
  REQUIRE(fails(from));
  const auto result = shrunk(from, fails, std::chrono::steady_clock::now() + std::chrono::seconds(20));
  REQUIRE(result.finished);
  REQUIRE(fails(result.recipe));
  return result.recipe;
}

} // namespace

TEST_CASE("every simpler recipe is well formed, different, and never leads back") {
  rc::prop("down a random path", [] {
    Recipe recipe = *any_recipe(Tier::nightly);
    std::size_t steps = 0;
    for (auto candidates = simpler(recipe); !candidates.empty(); candidates = simpler(recipe)) {
      for (const Recipe& candidate : candidates) {
        RC_ASSERT(!malformed(candidate));
        RC_ASSERT(!(candidate == recipe));
      }
      recipe = candidates[*rc::gen::inRange<std::size_t>(0, candidates.size())];
      RC_ASSERT(++steps < 20'000u); // sizes fall by one at the slowest
    }
  });
}

TEST_CASE("with nothing to keep, a recipe shrinks to a single empty call") {
  const Recipe least = minimal(complicated(), [](const Recipe&) { return true; });
  CHECK(least.shape == Shape{1, 0, 1, 1, 1, 1});
  CHECK(simpler(least).empty());
}

TEST_CASE("a planted failure shrinks to the known smallest recipe") {
  SECTION("a tail after the first chunk of 16") {
    const Recipe least = minimal(complicated(), [](const Recipe& r) { return r.shape.T > 16 && r.shape.T % 16 != 0; });
    CHECK(least.shape == Shape{1, 17, 1, 1, 1, 1});
    CHECK(least.keys == KeyPattern::signed_unit);
    CHECK(least.options.gate == GateForm::log_decay);
    CHECK(least.seed == 0);
  }
  SECTION("K unlike V, both beyond a tile") {
    const Recipe least = minimal(complicated(), [](const Recipe& r) { return r.shape.K > 8 && r.shape.V > 4 && r.shape.K != r.shape.V; });
    CHECK(least.shape == Shape{1, 0, 1, 1, 9, 5});
  }
  SECTION("grouped heads with a key pattern and a decay of a size") {
    const Recipe least = minimal(complicated(), [](const Recipe& r) {
      return r.shape.HV > r.shape.H && r.keys == KeyPattern::near_identical && r.decay > 0 && r.shape.T >= 2;
    });
    CHECK(least.shape == Shape{1, 2, 1, 2, 1, 1});
    CHECK(least.keys == KeyPattern::near_identical);
    CHECK(least.state == StatePattern::absent);
    int exponent = 0;
    CHECK(std::frexp(least.decay, &exponent) == 0.5f);
  }
  SECTION("an empty member before one with tokens") {
    Recipe packed = complicated();
    packed.shape.B = 1;
    packed.lengths = {31, 0, 64, 1, 0, 0, 54};
    const Recipe least = minimal(packed, [](const Recipe& r) {
      for (std::size_t i = 1; i < r.lengths.size(); ++i)
        if (r.lengths[i - 1] == 0 && r.lengths[i] > 0) return true;
      return false;
    });
    CHECK(least.lengths == std::vector<std::int64_t>{0, 1});
    CHECK(least.shape == Shape{1, 1, 1, 1, 1, 1});
  }
  SECTION("a raw gate with its bias, at one seed of two") {
    const Recipe least = minimal(complicated(), [](const Recipe& r) {
      return r.options.gate != GateForm::log_decay && r.options.gate != GateForm::absent && r.gate_bias && r.seed % 2 == 1;
    });
    CHECK(least.options.gate == GateForm::sigmoid);
    CHECK(least.gate_bias);
    CHECK(least.seed == 1);
  }
}

TEST_CASE("a walk past its deadline stops and keeps what it had") {
  const auto result = shrunk(
      complicated(), [](const Recipe&) { return true; }, std::chrono::steady_clock::now());
  CHECK_FALSE(result.finished);
  CHECK(result.recipe == complicated());
  CHECK(result.tried == 0);
}

TEST_CASE("RapidCheck itself shrinks a failing recipe to the same one") {
  auto tree = shrinkable(complicated());
  const auto fails = [](const Recipe& r) { return r.shape.T >= 5; };
  for (bool deeper = true; deeper;) {
    deeper = false;
    auto branches = tree.shrinks();
    while (auto branch = branches.next())
      if (fails(branch->value())) {
        tree = std::move(*branch);
        deeper = true;
        break;
      }
  }
  CHECK(tree.value() == minimal(complicated(), fails));
}
