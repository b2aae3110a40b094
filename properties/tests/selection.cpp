#include "../selection.hpp"

#include <catch2/catch.hpp>

using namespace kdacheck;

namespace {
struct Named {
  std::string name;
};
const std::vector<Named> all{{"cpu.chunk16.bf16"}, {"cpu.chunk64.bf16"}, {"cpu.recurrence.fp32"}};
} // namespace

TEST_CASE("no pattern selects everything, in the given order") {
  const auto chosen = matching<Named>("kernel", {}, all);
  REQUIRE(chosen.size() == 3);
  CHECK(chosen[2]->name == "cpu.recurrence.fp32");
}

TEST_CASE("a glob selects what it matches, once, in the given order") {
  const auto chosen = matching<Named>("kernel", {"*recurrence*", "*.bf16", "cpu.chunk16*"}, all);
  REQUIRE(chosen.size() == 3);
  CHECK(chosen[0]->name == "cpu.chunk16.bf16");
  REQUIRE(matching<Named>("kernel", {"*chunk*"}, all).size() == 2);
}

TEST_CASE("a pattern that matches nothing is refused with the nearest name") {
  try {
    matching<Named>("kernel", {"cpu.chunk46.bf16"}, all);
    FAIL("was accepted");
  } catch (const UsageError& error) {
    CHECK(std::string(error.what()).find("'cpu.chunk46.bf16'") != std::string::npos);
    CHECK(std::string(error.what()).find("cpu.chunk") != std::string::npos);
  }
  CHECK(nearest_name("agree", {"linear", "agrees", "zzz"}) == "agrees");
}
