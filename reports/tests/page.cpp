#include "../page.hpp"
#include "../../reference/atomic_file.hpp"
#include "../page_data.hpp"
#include "../recipe_coordinates.hpp"
#include "sample_results.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <cstdlib>

using namespace kdacheck;
using Json = nlohmann::json;

namespace {

Recipe slow_decay() {
  Recipe recipe;
  recipe.regime = "slow-decay";
  return recipe;
}

double correlation(KeyPattern keys, float noise) {
  Recipe recipe;
  recipe.keys = keys;
  recipe.key_noise = noise;
  return key_correlation(recipe);
}

/// A measured case with a token that can be read.
CaseResult measured_case(double bound_util, const Recipe& recipe = slow_decay()) {
  CaseResult result = sample_case("cpu.right", Verdict::passed, bound_util);
  result.replay = replay_token({.kernel = "cpu.right", .property = result.property, .recipe = recipe});
  result.finding.place = Place{.tensor = "o", .sequence = 0, .head = 0, .token = 17, .chunk_position = 1};
  return result;
}

Json page_of(const std::vector<CaseResult>& cases, std::size_t most = 100) {
  Results results;
  for (const CaseResult& result : cases) add(results, result);
  return Json::parse(to_page_json(results, cases, Json::object(), most));
}

} // namespace

TEST_CASE("the page knows a case's length, decay, position and error, and puts its token together again") {
  Recipe recipe = slow_decay();
  recipe.lengths = {40, 0, 65};
  recipe.decay = 0.125f;
  recipe.shape = {.B = 1, .T = 105, .H = 1, .HV = 1, .K = 8, .V = 8};
  recipe.options.gate = GateForm::log_decay;
  const CaseResult result = measured_case(0.25, recipe);
  const Json page = page_of({result});
  const Json& columns = page.at("cases");
  CHECK(page["recipes"][0][1] == 65);
  CHECK(page["recipes"][0][2] == 0.125);
  CHECK(columns["position"][0] == 1);
  CHECK(columns["util"][0] == 0.25);
  CHECK(page["kernel_words"][0].get<std::string>() + ":" + page["property_words"][0].get<std::string>() + ":" +
            page["recipes"][0][0].get<std::string>() ==
        result.replay);
}

TEST_CASE("a figure that is not finite stays one, and counts as the largest") {
  const Json page = page_of({measured_case(0.5), measured_case(std::numeric_limits<double>::quiet_NaN())});
  CHECK(page["cases"]["util"][1] == "NaN");
  CHECK(page["spread"][0][9] == "Infinity");
}

TEST_CASE("of more cases than can be drawn the worst stand on the page, and their spread is that of all") {
  std::vector<CaseResult> cases;
  for (int i = 0; i <= 100; ++i) cases.push_back(measured_case(0.005 * i));
  const Json page = page_of(cases, 10);
  CHECK(page["measured"] == 101);
  CHECK(page["drawn"] == 10);
  CHECK(page["cases"]["util"][0] == 0.5);
  CHECK(page["spread"][0][2] == 101);
  CHECK(page["spread"][0][6] == 0.25);
}

TEST_CASE("text of a run cannot end the script element that it stands in") {
  Results results = sample_results();
  results.context.host = "</script><!--";
  const std::string text = to_page_json(results, {});
  CHECK(text.find('<') == std::string::npos);
  const Json page = Json::parse(text);
  CHECK(std::any_of(page["context"].begin(), page["context"].end(), [](const Json& row) { return row[1] == "</script><!--"; }));
}

TEST_CASE("every failing group is on the page with its place and replay token") {
  const Json page = Json::parse(to_page_json(sample_results(), {}));
  CHECK(page["status"] == 1);
  CHECK(page["failures"].size() == 5);
  for (const Json& failure : page["failures"]) {
    CHECK(failure["place"].get<std::string>().find("final_state: sequence 0") == 0);
    CHECK(failure["replay"].get<std::string>().find("TOKEN-cpu.wrong") == 0);
  }
}

TEST_CASE("a failing group says on the page which stage of the kernel its error came from") {
  CaseResult failing = sample_case("cpu.wrong", Verdict::failed_proved, 13.25),
             other = sample_case("cpu.wrong", Verdict::crashed, 0, "long");
  failing.localised = "stage inverse (confidence 0.93)";
  const Json page = page_of({failing, other});
  REQUIRE(page["failures"].size() == 2);
  for (const Json& failure : page["failures"])
    CHECK(failure["stage"] == (failure["regime"] == "long" ? "" : "stage inverse (confidence 0.93)"));
}

TEST_CASE("a page holds its parts in place, and a mark inside one of them is left alone") {
  const std::string page = to_page("{\"a\":\"{{script}}\"}", "var library = 1;");
  CHECK(page.find("id=\"data\">{\"a\":\"{{script}}\"}</script>") != std::string::npos);
  CHECK(page.find("{{style}}") == std::string::npos);
  CHECK(page.find("var library = 1;") < page.find("id=\"data\""));
  CHECK(page.find("const page = JSON.parse") > page.find("id=\"data\""));
}

TEST_CASE("a missing charting library is named in one sentence") {
  setenv("KDACHECK_CHART_JS", "/nonexistent/chart.js", 1);
  CHECK_THROWS_WITH(chart_library(), Catch::Contains("/nonexistent/chart.js") && Catch::Contains("libjs-chart.js"));
  CHECK_THROWS_AS(chart_library(), FileTrouble);
  unsetenv("KDACHECK_CHART_JS");
}

TEST_CASE("keys are as correlated as they are drawn") {
  CHECK(correlation(KeyPattern::gaussian, 0) == 0);
  CHECK(correlation(KeyPattern::near_identical, 0) == 1);
  CHECK(correlation(KeyPattern::near_identical, 0.5f) == 0.5);
  CHECK(correlation(KeyPattern::walsh, 1) == 0.125);
  CHECK(correlation(KeyPattern::walsh, 0) == 1);
}

TEST_CASE("a gate's typical decay follows its pattern") {
  Recipe recipe;
  recipe.decay = 2;
  recipe.options.gate = GateForm::log_decay;
  CHECK(typical_decay(recipe) == 2);
  recipe.gates = GatePattern::published_init;
  recipe.decay = 1;
  CHECK(typical_decay(recipe) == Approx(0.085));
  recipe.gates = GatePattern::trained;
  CHECK(typical_decay(recipe) == Approx(std::sqrt(200.0) * std::log(2.0)));
  recipe.options.gate = GateForm::absent;
  CHECK(typical_decay(recipe) == 0);
}
