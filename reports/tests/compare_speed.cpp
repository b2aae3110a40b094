#include "../compare_speed.hpp"

#include <catch2/catch.hpp>

using namespace kdacheck;
using Json = nlohmann::ordered_json;

namespace {

Json bench(double least, double median, double most, const char* kernel = "k") {
  const Json row{{"kernel", kernel}, {"what", "forward"}, {"case", "B 1"}, {"least_ms", least}, {"median_ms", median}, {"most_ms", most}};
  return {{"schema_version", 1}, {"rows", Json::array({row})}};
}

SpeedComparison compared(const Json& before, const Json& after) { return compare_speed({"a/bench.json", before}, {"b/bench.json", after}); }

bool slower(const Json& before, const Json& after) { return compared(before, after).changes.at(0).worse; }

} // namespace

TEST_CASE("a kernel is slower only if every repeat is, and by a tenth") {
  CHECK(slower(bench(1, 1.1, 1.2), bench(2, 2.1, 2.2)));
  CHECK_FALSE(slower(bench(1, 1.1, 2.05), bench(2, 2.1, 2.2)));
  CHECK_FALSE(slower(bench(1, 1.01, 1.02), bench(1.03, 1.04, 1.05)));
  CHECK_FALSE(slower(bench(2, 2.1, 2.2), bench(1, 1.1, 1.2)));
  CHECK(slower(bench(1, 1, 1), bench(NAN, NAN, NAN)));
}

TEST_CASE("the ratio carries its spread, and rows of one run alone have none") {
  const SpeedChange change = compared(bench(1, 2, 4), bench(2, 4, 5)).changes.at(0);
  CHECK(change.ratio == 2);
  CHECK(change.low == 0.5);
  CHECK(change.high == 5);
  const SpeedComparison apart = compared(bench(1, 1, 1), bench(1, 1, 1, "another"));
  CHECK(apart.changes.empty());
  CHECK(to_text(apart) == "times: 1 rows only in the first, 1 only in the second\n");
}

TEST_CASE("another schema version and another file are refused in one sentence") {
  Json other = bench(1, 1, 1);
  other["schema_version"] = 2;
  CHECK_THROWS_WITH(compared(bench(1, 1, 1), other), Catch::StartsWith("b/bench.json has schema version 2"));
  CHECK_THROWS_WITH(compared(Json::object(), other), "a/bench.json is not a bench.json of this suite");
}
