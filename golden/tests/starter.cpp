#include "../golden_set.hpp"

#include <catch2/catch.hpp>

#include <set>

using namespace kdacheck;

TEST_CASE("the committed starter set is whole, follows from its recipes, and has a case for every regime") {
  const std::filesystem::path set = std::filesystem::path(KDACHECK_GOLDEN) / "starter";
  std::set<std::string> covered;
  for (const GoldenOutcome& outcome : verify_golden(set)) {
    INFO(outcome.name << (outcome.remarks.empty() ? "" : ": " + outcome.remarks.front()));
    CHECK(outcome.kind == GoldenOutcome::Kind::same);
    covered.insert(outcome.name.substr(0, outcome.name.find('.')));
  }
  for (const Regime& regime : regimes()) {
    INFO(regime.name);
    CHECK(covered.contains(regime.name));
  }
}

TEST_CASE("the starter set stays under 20 MB") {
  std::uintmax_t bytes = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(std::filesystem::path(KDACHECK_GOLDEN) / "starter"))
    if (entry.is_regular_file()) bytes += entry.file_size();
  CHECK(bytes > 0);
  CHECK(bytes < 20'000'000);
}
