// Which sizes meet in a run of the quick tier: what is never drawn is never judged. "properties_sizes_of_a_run counts" prints them.

#include "../campaign.hpp"

#include <catch2/catch.hpp>

#include <iostream>
#include <map>
#include <set>

using namespace kdacheck;

namespace {

std::vector<Recipe> judged; ///< by the law below

/// The recipes that agreement with the oracle, forward or backward, judges a kernel on in a run: planned as ever, only not run.
std::vector<Recipe> recipes_of_run(std::uint64_t seed, const char* law) {
  const Property recorder{.name = law, .claim = "none", .everywhere = true, .check = [](const Subject&, const Recipe& recipe) {
                            judged.push_back(recipe);
                            return Finding{};
                          }};
  Plan plan;
  plan.properties = {&recorder};
  plan.seed = seed;
  plan.threads = 1;
  for (const Kernel& kernel : built_in_kernels())
    if (kernel.name == "cpu.recurrence.fp32") plan.kernels.push_back(&kernel);
  for (const Regime& regime : regimes()) plan.regimes.push_back(&regime);
  judged.clear();
  run_campaign(plan, [](const CaseResult&) {});
  return judged;
}

using Count = std::map<std::string, int>;

void count(Count& counts, const Recipe& r) {
  const auto add = [&](std::string_view what, auto... values) {
    std::string key(what);
    ((key += " " + std::to_string(values)), ...);
    ++counts[key];
  };
  const Shape& s = r.shape;
  add("K", s.K), add("V", s.V), add("T", s.T), add("T%64", s.T % 64), add("B", s.B), add("H", s.H), add("HV", s.HV),
      add("HV/H", s.HV / s.H);
  add("B>1,T%64=0", s.B > 1, s.T % 64 == 0), add("V%64,T%16", s.V / 16 * 16 % 64, s.T % 16),
      add("K,gate", s.K, static_cast<int>(r.options.gate));
  add("B>1,gate", s.B > 1, static_cast<int>(r.options.gate)), add("B>1,l2norm", s.B > 1, r.options.l2norm);
  add("B>1,state", s.B > 1, r.state != StatePattern::absent), add("packed,T%64=0", !r.lengths.empty(), s.T % 64 == 0);
}

} // namespace

TEST_CASE("every run of the quick tier judges every multiple of 16 as K and V, with every remainder and tail of the other") {
  for (const char* law : {"agrees-with-the-oracle", "gradients-agree-with-the-oracle"})
    for (std::uint64_t seed : {1u, 2u, 3u, 4u, 5u, 77u}) {
      INFO(law << ", seed " << seed);
      std::set<std::int64_t> K, V;
      std::set<std::pair<std::int64_t, std::int64_t>> remainders, tails_of_K, tails_of_V;
      std::set<std::string> with_wide_values, with_wide_keys;
      for (const Recipe& recipe : recipes_of_run(seed, law)) {
        const Shape& s = recipe.shape;
        const std::int64_t last = s.T % 16, tail = last == 0 || last == 1 || last == 15 ? last : 2;
        K.insert(s.K), V.insert(s.V);
        if (s.K % 16 == 0 && s.V % 16 == 0 && s.T > 0) {
          remainders.emplace(s.K % 64, s.V % 64);
          tails_of_K.emplace(s.K % 64, tail), tails_of_V.emplace(s.V % 64, tail);
        }
        if (s.V >= 128) with_wide_values.insert(recipe.regime);
        if (s.K >= 128) with_wide_keys.insert(recipe.regime);
      }
      for (std::int64_t width = 16; width <= 256; width += 16) {
        INFO("width " << width);
        CHECK(K.contains(width));
        CHECK(V.contains(width));
      }
      CHECK(remainders.size() == 16);
      CHECK(tails_of_K.size() == 16);
      CHECK(tails_of_V.size() == 16);
      CHECK(with_wide_values.size() >= 3);
      CHECK(with_wide_keys.size() >= 3);
    }
}

TEST_CASE("every run of the quick tier judges batches and packed members of whole chunks, a token less and a token more") {
  for (const char* law : {"agrees-with-the-oracle", "gradients-agree-with-the-oracle"})
    for (std::uint64_t seed : {1u, 2u, 3u, 4u, 5u, 77u}) {
      INFO(law << ", seed " << seed);
      std::set<std::int64_t> whole, lengths, members, heads, groups;
      for (const Recipe& recipe : recipes_of_run(seed, law)) {
        const Shape& s = recipe.shape;
        for (std::int64_t length : recipe.lengths)
          if (recipe.lengths.size() > 1) members.insert(length);
        if (s.B < 2) continue;
        lengths.insert(s.T), heads.insert(s.H), groups.insert(s.HV / s.H);
        if (s.T > 0 && s.T % 64 == 0) whole.insert(s.B);
      }
      for (std::int64_t B : {2, 3, 4, 5}) CHECK(whole.contains(B));
      for (std::int64_t C : {16, 32, 64, 128})
        for (std::int64_t T : {C - 1, C, C + 1}) {
          INFO("T = " << T);
          CHECK(lengths.contains(T));
        }
      for (std::int64_t C : {16, 32, 63, 64, 65, 128}) CHECK(members.contains(C));
      CHECK(heads.contains(3));
      for (std::int64_t group : {1, 2, 3}) CHECK(groups.contains(group));
    }
}

TEST_CASE("counts", "[.]") {
  Count counts;
  for (const Recipe& recipe : recipes_of_run(1, "agrees-with-the-oracle")) count(counts, recipe);
  for (const auto& [what, many] : counts) std::cout << what << ": " << many << '\n';
}
