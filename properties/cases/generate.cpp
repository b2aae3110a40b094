#include "generate.hpp"

#include <rapidcheck.h>

namespace kdacheck {
namespace {

std::uint64_t seed_from(const rc::Random& random) {
  rc::Random copy = random;
  return copy.next() >> 32;
}

} // namespace

rc::Shrinkable<Recipe> shrinkable(const Recipe& recipe) {
  return rc::shrinkable::shrinkRecur(recipe, [](const Recipe& from) { return rc::seq::fromContainer(simpler(from)); });
}

rc::Gen<Recipe> recipes_of(const Regime& regime, Tier tier, std::uint64_t round) {
  return [draw = regime.draw, tier, round](const rc::Random& random, int) {
    return shrinkable(draw(seed_from(random) / 64 * 64 + round, tier));
  };
}

Recipe drawn(const rc::Gen<Recipe>& generator, std::uint64_t seed) { return generator(rc::Random(seed), rc::kNominalSize).value(); }

rc::Gen<Recipe> any_recipe(Tier tier) {
  return [tier](const rc::Random& random, int) {
    const std::uint64_t seed = seed_from(random);
    const auto all = regimes();
    const Regime& regime = seed % 3 == 0 ? all.back() : all[static_cast<std::size_t>(seed / 3 % all.size())];
    return shrinkable(regime.draw(seed, tier));
  };
}

Shrunk shrunk(const Recipe& recipe, const std::function<bool(const Recipe&)>& still_fails, std::chrono::steady_clock::time_point deadline) {
  Shrunk result{.recipe = recipe};
  auto here = shrinkable(recipe);
  while (!result.finished) {
    result.finished = true;
    auto branches = here.shrinks();
    while (auto branch = branches.next()) {
      if (std::chrono::steady_clock::now() >= deadline) {
        result.finished = false;
        return result;
      }
      ++result.tried;
      Recipe candidate = branch->value();
      if (!still_fails(candidate)) continue;
      result.recipe = std::move(candidate);
      ++result.steps;
      here = std::move(*branch);
      result.finished = false;
      break;
    }
  }
  return result;
}

} // namespace kdacheck
