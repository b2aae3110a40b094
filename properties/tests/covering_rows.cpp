#include "../cases/covering_rows.hpp"

#include "../cases/recipe.hpp"

#include <catch2/catch.hpp>

#include <array>
#include <set>

using namespace kdacheck;

TEST_CASE("every two levels of every two factors meet in a row, in few rows") {
  const std::array<int, 5> levels{4, 3, 1, 3, 2};
  const auto free_of_cost = [](const CoveringRow&) { return std::int64_t{0}; };
  constexpr std::array limits{std::int64_t{0}};
  const auto rows = covering_rows(levels, free_of_cost, limits);
  std::set<std::array<int, 4>> met;
  for (const CoveringRow& row : rows) {
    REQUIRE(row.size() == levels.size());
    for (std::size_t j = 0; j < row.size(); ++j) {
      CHECK((row[j] >= 0 && row[j] < levels[j]));
      for (std::size_t i = 0; i < j; ++i) met.insert({static_cast<int>(i), row[i], static_cast<int>(j), row[j]});
    }
  }
  std::size_t pairs = 0;
  for (std::size_t j = 0; j < levels.size(); ++j)
    for (std::size_t i = 0; i < j; ++i) pairs += static_cast<std::size_t>(levels[i] * levels[j]);
  CHECK(met.size() == pairs);
  CHECK(rows.size() >= 12); // 4 x 3
  CHECK(rows.size() <= 16);
  CHECK(missing_pairs(levels, rows).empty());
  CHECK(rows == covering_rows(levels, free_of_cost, limits));
}

TEST_CASE("no row costs more than the last limit, few more than the first, and what none can hold is said to be missing") {
  const std::array<int, 3> levels{3, 3, 2};
  const auto cost = [](const CoveringRow& row) { return static_cast<std::int64_t>(row[0] * row[1] + row[2]); };
  const auto rows = covering_rows(levels, cost, std::array<std::int64_t, 2>{1, 3});
  std::ptrdiff_t above_first = 0;
  for (const CoveringRow& row : rows) {
    CHECK(cost(row) <= 3);
    above_first += cost(row) > 1;
  }
  CHECK(above_first == 2); // (1, 2) and (2, 1)
  const auto missing = missing_pairs(levels, rows);
  REQUIRE(missing.size() == 1);
  CHECK((missing[0].first == 0 && missing[0].second == 1 && missing[0].first_level == 2 && missing[0].second_level == 2));
  auto fewer = rows;
  fewer.pop_back();
  CHECK(missing_pairs(levels, fewer).size() > 1); // the last row held something that no other does
}
