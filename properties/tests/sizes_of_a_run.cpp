// Which sizes meet in a run of the quick tier: what is never drawn is never judged. "properties_sizes_of_a_run counts" prints them.

#include "../campaign.hpp"
#include "../cases/covering_rows.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <iostream>
#include <map>
#include <set>

using namespace kdacheck;

namespace {

std::vector<Recipe> judged; ///< by the law below

/// The recipes that agreement with the oracle, forward or backward, judges a kernel on in a run: planned as ever, only not run.
std::vector<Recipe> recipes_of_run(std::uint64_t seed, const char* law) {
  const Property recorder{
      .name = law, .claim = "none", .everywhere = true, .in_every_round = true, .check = [](const Subject&, const Recipe& recipe) {
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

/// What a case has of one thing: the classes that a kernel may dispatch by, not the regime's own.
struct Feature {
  const char* name;
  int (*level)(const Recipe&);
};

int range_of(std::int64_t size, std::initializer_list<std::int64_t> least) {
  return static_cast<int>(std::ranges::count_if(least, [&](std::int64_t from) { return size >= from; }));
}

constexpr Feature features[]{
    {"K",
     [](const Recipe& r) {
       return range_of(r.shape.K, {9, 17, 65, 129});
     }},
    {"K mod 8",
     [](const Recipe& r) {
       return static_cast<int>(std::array{0, 3, 2, 4, 1, 4, 2, 5}[static_cast<std::size_t>(r.shape.K % 8)]);
     }},
    {"V",
     [](const Recipe& r) {
       return range_of(r.shape.V, {9, 17, 65, 129});
     }},
    {"V mod 8",
     [](const Recipe& r) {
       return static_cast<int>(std::array{0, 3, 2, 4, 1, 4, 2, 5}[static_cast<std::size_t>(r.shape.V % 8)]);
     }},
    {"T",
     [](const Recipe& r) {
       return range_of(r.lengths.empty() ? r.shape.T : std::ranges::max(r.lengths), {2, 16, 65, 129});
     }},
    {"company", [](const Recipe& r) { return r.lengths.size() == 1 ? 3
                                             : !r.lengths.empty()  ? 2
                                             : r.shape.B > 1       ? 1
                                                                   : 0; }},
    {"heads", [](const Recipe& r) { return r.shape.HV > r.shape.H ? 2
                                           : r.shape.H > 1        ? 1
                                                                  : 0; }},
    {"state", [](const Recipe& r) { return r.state != StatePattern::absent ? 1 : 0; }},
    {"gate", [](const Recipe& r) { return static_cast<int>(r.options.gate); }},
    {"beta", [](const Recipe& r) { return 2 * static_cast<int>(r.options.beta != BetaForm::value) + (r.beta_center > 0.5f ? 1 : 0); }},
    {"l2norm", [](const Recipe& r) { return r.options.l2norm ? 1 : 0; }},
    {"scale",
     [](const Recipe& r) {
       return range_of(static_cast<std::int64_t>(r.options.scale * std::sqrt(static_cast<double>(r.shape.K)) * 8 + 0.5), {2, 24});
     }},
    {"keys", [](const Recipe& r) { return r.keys == KeyPattern::gaussian ? 0 : 1; }},
};

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

TEST_CASE("every run of the quick tier judges every two of widths, remainders, lengths, companies, heads, forms and magnitudes together") {
  for (const char* law : {"agrees-with-the-oracle", "gradients-agree-with-the-oracle"})
    for (std::uint64_t seed : {1u, 2u, 77u}) {
      INFO(law << ", seed " << seed);
      std::vector<std::vector<int>> seen;
      std::vector<int> levels(std::size(features), 0);
      for (const Recipe& recipe : recipes_of_run(seed, law)) {
        if (recipe.shape.T == 0 || recipe.options.rule != Rule::kda) continue;
        auto& row = seen.emplace_back();
        for (std::size_t i = 0; i < std::size(features); ++i) {
          row.push_back(features[i].level(recipe));
          levels[i] = std::max(levels[i], row.back() + 1);
        }
      }
      std::string missing;
      for (const MissingPair& pair : missing_pairs(levels, seen))
        missing += std::string(features[pair.first].name) + " " + std::to_string(pair.first_level) + " with " + features[pair.second].name +
                   " " + std::to_string(pair.second_level) + "; ";
      CHECK(missing == "");
    }
}

TEST_CASE("every run of the quick tier has packed members of more than 512 tokens, packs of one, large scales, wide keys over long runs") {
  for (std::uint64_t seed : {1u, 2u, 3u, 4u, 5u, 77u}) {
    INFO("seed " << seed);
    std::int64_t longest_member = 0;
    int packs_of_one = 0, wide_keys = 0, wide_values = 0, wide_and_two = 0, large_values = 0;
    float scale = 0;
    for (const Recipe& recipe : recipes_of_run(seed, "agrees-with-the-oracle")) {
      const Shape& s = recipe.shape;
      for (std::int64_t length : recipe.lengths)
        if (recipe.lengths.size() > 1) longest_member = std::max(longest_member, length);
      packs_of_one += recipe.lengths.size() == 1 && s.T > 64;
      wide_keys += s.K > 128 && s.V <= 16 && s.T > 65;
      wide_values += s.V > 128 && s.K <= 16 && s.T > 65;
      wide_and_two += s.V >= 128 && recipe.beta_center > 0.5f;
      scale = std::max(scale, recipe.options.scale);
      const auto v = make_problem(recipe, {Format::bf16, Format::fp32, Format::fp32}).v;
      large_values += std::ranges::any_of(v, [](float x) { return std::fabs(x) > 65504; });
    }
    CHECK(longest_member > 512);
    CHECK(packs_of_one >= 2);
    CHECK(wide_keys >= 1);
    CHECK(wide_values >= 1);
    CHECK(wide_and_two >= 2);
    CHECK(scale > 8);
    CHECK(large_values >= 1);
  }
}

TEST_CASE("counts", "[.]") {
  Count counts;
  for (const Recipe& recipe : recipes_of_run(1, "agrees-with-the-oracle")) count(counts, recipe);
  for (const auto& [what, many] : counts) std::cout << what << ": " << many << '\n';
}
