#include "../search.hpp"

#include "../../kernels/faults/faults.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <set>

using namespace kdacheck;

TEST_CASE("variations reach every parameter, size and layout, and none is malformed") {
  Recipe recipe = regime_named("usual-decay")->draw(1, Tier::quick);
  const Recipe other = regime_named("near-identical-keys")->draw(2, Tier::quick);
  std::set<std::int64_t> T, K, V, H, groups, B, members;
  std::set<float> decay, key_noise, value_scale, state_scale, beta_center, beta_spread, decay_spread;
  std::set<KeyPattern> keys;
  int empty_members = 0;
  for (std::uint64_t seed = 1; seed <= 3000; ++seed) {
    const Recipe next = varied(recipe, other, seed);
    const auto why = malformed(next);
    INFO(to_token(next));
    REQUIRE(!why.has_value());
    REQUIRE(next == varied(recipe, other, seed)); // a seed makes one variation
    REQUIRE(next.shape.B * next.shape.T * next.shape.HV <= 16384);
    T.insert(next.shape.T), K.insert(next.shape.K), V.insert(next.shape.V), H.insert(next.shape.H), B.insert(next.shape.B);
    groups.insert(next.shape.HV / next.shape.H), members.insert(static_cast<std::int64_t>(next.lengths.size()));
    empty_members += static_cast<int>(std::ranges::count(next.lengths, 0));
    decay.insert(next.decay), key_noise.insert(next.key_noise), value_scale.insert(next.value_scale), state_scale.insert(next.state_scale);
    beta_center.insert(next.beta_center), beta_spread.insert(next.beta_spread), decay_spread.insert(next.decay_spread);
    keys.insert(next.keys);
    if (seed % 3 == 0) recipe = next; // a walk, as a search goes on from what it found
  }
  for (const auto* sizes : {&T, &K, &V}) CHECK(sizes->size() > 30);
  CHECK(B == std::set<std::int64_t>{1, 2, 3});
  CHECK(H.contains(3));
  CHECK(groups.contains(2));
  CHECK(members.contains(0));
  CHECK(members.contains(4));
  CHECK(empty_members > 0);
  for (const auto* values : {&decay, &key_noise, &value_scale, &state_scale, &beta_center, &beta_spread, &decay_spread})
    CHECK(values->size() > 100);
  CHECK(keys.size() == 2); // what the two recipes have
}

TEST_CASE("a search finds a fault, in the layout that it needs, and shrinks it to a case that still fails") {
  for (const char* name : {"group-by-modulo", "beta-bf16"}) {
    FaultInfo planted{};
    for (const FaultInfo& info : planted_faults())
      if (info.name == name) planted = info;
    const Kernel wrong = faulty_kernel(planted);
    const SearchPlan plan{.kernel = &wrong,
                          .regimes = {regime_named("narrow"), regime_named("usual-decay")},
                          .seconds = 3,
                          .shrink_seconds = 3,
                          .threads = 1};
    const SearchResult result = search_worst(plan);
    INFO(name << " after " << result.evaluations << " cases");
    REQUIRE(result.failed());
    REQUIRE(result.shrunk.has_value());
    const Recipe &small = *result.shrunk, &large = result.elites.front().recipe;
    const auto size = [](const Recipe& r) { return r.shape.B * r.shape.T * r.shape.HV * r.shape.K * r.shape.V; };
    CHECK(size(small) <= size(large));
    const Problem problem = make_problem(small, input_formats(wrong.contract));
    CHECK(is_failure(Judge().forward(wrong.contract, problem, run_forward(wrong, problem)).verdict));
    if (planted.name == "group-by-modulo") CHECK(small.shape.H > 1);
  }
}
