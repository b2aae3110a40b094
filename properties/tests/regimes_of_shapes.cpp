// Regimes of lengths, packing, heads and widths do what their names say.

#include "regime_measures.hpp"

#include <set>

using namespace kdacheck;

TEST_CASE("every length from 0 to twice the chunk and one more is drawn, the sharp ones first") {
  for (const auto& [name, C] : {std::pair{"every-length-64", 64}, std::pair{"every-length-16", 16}}) {
    std::set<std::int64_t> lengths, first;
    for (std::uint64_t seed = 0; seed < 192; ++seed) {
      lengths.insert(regime_named(name)->draw(seed, Tier::quick).shape.T);
      if (seed < 14) first = lengths;
    }
    CHECK(*lengths.begin() == 0);
    CHECK(*lengths.rbegin() == 2 * C + 1);
    CHECK(lengths.size() == static_cast<std::size_t>(2 * C + 2));
    CHECK(regime_named(name)->draw(640, Tier::quick).shape.T == C + 1);
    for (std::int64_t T : {0, 1, C - 1, C, C + 1, 2 * C, 2 * C + 1}) CHECK(first.count(T) == 1);
  }
}

TEST_CASE("packed regimes hold empty members in every position, single tokens and odd offsets") {
  bool first = false, last = false, between = false, all = false, odd = false;
  for (const Case& c : cases("packed-with-empty")) {
    const auto& lengths = c.recipe.lengths;
    const bool empty = std::all_of(lengths.begin(), lengths.end(), [](auto length) { return length == 0; });
    all = all || empty;
    if (empty) continue;
    first = first || lengths.front() == 0;
    last = last || lengths.back() == 0;
    for (std::size_t i = 1; i + 1 < lengths.size(); ++i) between = between || lengths[i] == 0;
  }
  CHECK((first && last && between && all));
  for (std::uint64_t run = 0; run < 6; ++run) // whatever the seed, empty members with a state are among the first cases
    CHECK(regime_named("packed-with-empty")->draw(run * 64, Tier::quick).state == StatePattern::gaussian);
  for (const Case& c : cases("packed"))
    for (std::int64_t start : c.problem.cu_seqlens) odd = odd || start % 2 == 1;
  CHECK(odd);
  for (const Case& c : cases("packed-single-tokens")) {
    CHECK(std::count(c.recipe.lengths.begin(), c.recipe.lengths.end(), 1) >= 4);
    CHECK(std::count_if(c.recipe.lengths.begin(), c.recipe.lengths.end(), [](auto length) { return length != 1; }) <= 1);
  }
}

TEST_CASE("heads are grouped and widths are odd where the regime says so") {
  std::set<std::int64_t> groups;
  for (const Case& c : cases("grouped-heads")) groups.insert(c.recipe.shape.HV / c.recipe.shape.H);
  CHECK(groups == std::set<std::int64_t>{2, 3, 4});
  for (const Case& c : cases("odd-widths")) {
    CHECK(c.recipe.shape.K != c.recipe.shape.V);
    CHECK(c.recipe.shape.K % 8 != 0);
  }
  bool one_key = false, one_value = false;
  for (const Case& c : cases("narrow")) {
    one_key = one_key || c.recipe.shape.K == 1;
    one_value = one_value || c.recipe.shape.V == 1;
    CHECK(std::min(c.recipe.shape.K, c.recipe.shape.V) <= 4);
  }
  CHECK((one_key && one_value));
}

TEST_CASE("every run of the quick tier draws the shapes that once hid a fault") {
  const std::vector<std::uint64_t> runs{0, 1, 2, 3, 5, 8, 999'983, 123'456'789};
  for (const std::uint64_t run : runs) {
    const auto first = [&](const char* regime) { return regime_named(regime)->draw(run * 64, Tier::quick); };
    const auto second = [&](const char* regime) { return regime_named(regime)->draw(run * 64 + 1, Tier::quick); };
    INFO("seeds from " << run * 64);
    const auto alike = first("packed").lengths;
    CHECK(std::adjacent_find(alike.begin(), alike.end(), [](auto left, auto right) { return left == right && left > 16; }) != alike.end());
    const Recipe gathered = second("packed");
    CHECK((gathered.options.gate == GateForm::softplus && gathered.lengths.front() > 0 && gathered.lengths.back() > 0));
    const auto long_after_empty = first("packed-with-empty").lengths;
    CHECK((long_after_empty[0] == 0 && long_after_empty[1] > 64));
    CHECK(first("packed-single-tokens").lengths.size() > 40);
    CHECK(second("packed-single-tokens").lengths.size() > 40);
    const Shape grouped = first("grouped-heads").shape, many = first("many-heads-and-batches").shape, wide = first("full-width").shape;
    CHECK((grouped.HV == 3 * grouped.H && grouped.H > 1));
    CHECK((many.B > 4 && many.H > 8));
    CHECK(second("many-heads-and-batches").shape.B > 8);
    CHECK((wide.K == 128 && wide.V == 128 && wide.T > 64));
    CHECK(second("full-width").shape.K > 128);
    CHECK(first("many-heads-and-batches").options.gate == GateForm::softplus);
    CHECK(first("odd-widths").shape.V % 16 == 1);
  }
}
