// What all regimes have in common.

#include "regime_measures.hpp"

#include <set>

using namespace kdacheck;

TEST_CASE("every regime draws well-formed problems for every seed in every tier") {
  for (const Regime& regime : regimes()) {
    INFO(regime.name);
    for (std::uint64_t seed = 0; seed <= 200; ++seed)
      for (Tier tier : {Tier::quick, Tier::full, Tier::nightly}) {
        const Recipe recipe = regime.draw(seed, tier);
        INFO(to_token(recipe));
        CHECK(recipe.regime == regime.name);
        CHECK(malformed(recipe).value_or("") == "");
        if (tier != Tier::quick) continue;
        const Problem problem = make_problem(recipe, {Format::bf16, Format::fp32, Format::fp32});
        CHECK(malformed(problem).value_or("") == "");
      }
  }
}

TEST_CASE("every regime has a name of its own, a reason, and recipes that differ by seed") {
  std::set<std::string> names;
  for (const Regime& regime : regimes()) {
    INFO(regime.name);
    CHECK(names.insert(regime.name).second);
    CHECK(regime.why.size() > 10);
    CHECK(regime.why.find('\n') == std::string::npos);
    CHECK(regime_named(regime.name) == &regime);
    CHECK(regime.draw(3, Tier::quick) == regime.draw(3, Tier::quick));
    std::set<std::string> tokens;
    for (std::uint64_t seed = 0; seed < 50; ++seed) tokens.insert(to_token(regime.draw(seed, Tier::quick)));
    CHECK(tokens.size() == 50);
  }
  CHECK(names.size() >= 40);
  CHECK(regime_named("no-such-regime") == nullptr);
}

TEST_CASE("quick cases are small, and full and nightly ones are larger") {
  double quick = 0, full = 0, nightly = 0;
  for (const Regime& regime : regimes())
    for (std::uint64_t seed = 8; seed < 40; ++seed) {
      const auto work = [&](Tier tier) {
        const Shape s = regime.draw(seed, tier).shape;
        return static_cast<double>(s.B * s.T * s.HV * s.K * s.V);
      };
      INFO(regime.name << " " << seed);
      CHECK(work(Tier::quick) <= 1'000'000);
      quick += work(Tier::quick);
      full += work(Tier::full);
      nightly += work(Tier::nightly);
    }
  CHECK(full > 5 * quick);
  CHECK(nightly > 2 * full);
}

TEST_CASE("a run of seeds begins with more than one chunk of 64 and a tail, and soon has one chunk at most") {
  for (std::uint64_t run : {0u, 1u, 7u}) {
    CHECK(regime_named("gaussian-keys")->draw(64 * run, Tier::quick).shape.T > 64);
    CHECK(regime_named("gaussian-keys")->draw(64 * run, Tier::quick).shape.T % 64 != 0);
    CHECK(regime_named("gaussian-keys")->draw(64 * run + 2, Tier::quick).shape.T <= 64);
  }
}

TEST_CASE("the first two seeds of all regimes together have tails, grouped heads, batches, three chunks and K unlike V") {
  int tail = 0, grouped = 0, chunks = 0, unlike = 0, batch = 0, all = 0;
  for (const Regime& regime : regimes())
    for (std::uint64_t seed : {640u, 641u}) {
      const Shape s = regime.draw(seed, Tier::quick).shape;
      tail += s.T > 64 && s.T % 64 != 0 && s.T % 16 != 0;
      grouped += s.HV > s.H;
      chunks += s.T > 128;
      unlike += s.K != s.V;
      batch += s.B > 1;
      ++all;
    }
  CHECK(tail > all / 5);
  CHECK(grouped > all / 5);
  CHECK(chunks > all / 20);
  CHECK(unlike > all / 2);
  CHECK(batch > all / 20);
}
