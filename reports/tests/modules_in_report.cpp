// Modules stand in report.json under keys of their own, with a line per law and regime, and come back as they were.

#include "../module_figures.hpp"
#include "../page_data.hpp"
#include "../report_json.hpp"

#include "../../properties/modules/module_campaign.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <limits>
#include <nlohmann/json.hpp>

using namespace kdacheck;

namespace {

/// One law of one module on two regimes, the second of which fails.
Results judged() {
  const ModuleSuite& suite = *std::ranges::find(module_suites(), "KimiDeltaAttention", &ModuleSuite::name);
  Results results;
  results.kernels.push_back(tally_of(suite));
  results.kernels.push_back({.name = "cpu.some"});
  const auto add_case = [&](const char* regime, Verdict verdict, double util) {
    add(results, case_of({.module = suite.name,
                          .law = "causal",
                          .regime = regime,
                          .fault = {},
                          .seed = 1,
                          .finding = {.verdict = verdict, .bound_util = util, .place = {}, .detail = "", .metrics = {}}}));
  };
  add_case("usual", Verdict::passed, 0.25);
  add_case("packed", Verdict::failed_property, 3);
  return results;
}

} // namespace

TEST_CASE("report.json has modules apart from kernels, with laws and regimes") {
  const auto json = nlohmann::json::parse(to_report_json(judged()));
  REQUIRE(json.at("kernels").size() == 1);
  REQUIRE(json.at("modules").size() == 1);
  const auto& module = json.at("modules")[0];
  CHECK(module.at("name") == "module.KimiDeltaAttention");
  CHECK(module.at("verdict") == "failed_property");
  CHECK(module.at("source").get<std::string>().find("2510.26692") != std::string::npos);
  CHECK(module.at("cases") == 2);
  REQUIRE(module.at("laws").size() == 1);
  CHECK(module.at("laws")[0].at("name") == "causal");
  CHECK(module.at("laws")[0].at("failed") == 1);
  REQUIRE(module.at("regimes").size() == 2);
  CHECK(module.at("worst").at("replay") == "module.KimiDeltaAttention:causal:packed:1");
  CHECK(json.at("summary").at("cases") == 2);
}

TEST_CASE("the monitor's false alarms stand in report.json and on the page, regime by regime as the monitor counts them") {
  const ModuleSuite& suite = *std::ranges::find(module_suites(), "DPLRTransition", &ModuleSuite::name);
  Results results;
  results.context.seed = 3;
  results.kernels.push_back(tally_of(suite));
  const ModuleLaw& law = *std::ranges::find(suite.laws, "monitor-bounds-the-norm", &ModuleLaw::name);
  for (const char* regime : {"usual", "long-keys"}) add(results, case_of(run_module_case(suite, law, regime, 3)));
  results.figures = module_figures(results);
  const auto report = nlohmann::json::parse(to_report_json(results));
  const auto page = nlohmann::json::parse(to_page_json(results, {}, nlohmann::json::object(), 10));
  const auto& figures = report.at("modules")[0].at("figures");
  const auto& drawn = page.at("modules")[0].at("figures");
  REQUIRE(figures.size() == 2);
  REQUIRE(drawn.size() == 2);
  // most of usual tokens alarm the heuristic and none of them grows
  CHECK(figures[0].at("regime") == "usual");
  CHECK(figures[0].at("transitions") == 26);
  CHECK(figures[0].at("false alarms") > 13);
  CHECK(figures[0].at("false alarms") <= figures[0].at("heuristic warns"));
  CHECK(figures[1].at("proved to grow") > 0); // and long keys do grow
  CHECK(figures[1].at("false alarms") < figures[1].at("heuristic warns"));
  for (std::size_t r = 0; r < 2; ++r)
    for (const auto& [index, figure] : drawn[r].at("figures").items()) {
      const double exact = figures[r].at(figure[0].get<std::string>());
      CHECK(figure[1].get<double>() == Approx(exact).epsilon(1e-3));
    }
  CHECK(page.at("modules")[0].at("laws").size() == 1);
  CHECK(page.at("modules")[0].at("regimes").size() == 2);
  CHECK(page.at("modules")[0].at("heading") == "what its monitor proves, and a heuristic beside it");
  const Results back = results_from_report_json(to_report_json(results), "report.json"); // in the order of the figures
  CHECK(to_report_json(back) == to_report_json(results));
  CHECK(nlohmann::json::parse(to_page_json(back, {}, nlohmann::json::object(), 10)).at("modules") == page.at("modules"));
}

TEST_CASE("figures that could not be had are said to be lost in report.json and on the page, and nothing else is") {
  Results results = judged();
  results.figures["module.KimiDeltaAttention"] = {{"usual", {{"bytes", 7}, {"no number", std::numeric_limits<double>::quiet_NaN()}}, ""},
                                                  {"packed", {}, "its process was killed by signal 11"}};
  const auto report = nlohmann::json::parse(to_report_json(results));
  const auto& figures = report.at("modules")[0].at("figures");
  REQUIRE(figures.size() == 2);
  CHECK(figures[0] == nlohmann::json{{"regime", "usual"}, {"bytes", 7.0}, {"no number", "NaN"}});
  CHECK(figures[1] == nlohmann::json{{"regime", "packed"}, {"none", "its process was killed by signal 11"}});
  CHECK(report.at("summary").at("cases") == 2);
  const Results back = results_from_report_json(to_report_json(results), "report.json");
  CHECK(to_report_json(back) == to_report_json(results));
  const auto page = nlohmann::json::parse(to_page_json(back, {}, nlohmann::json::object(), 10));
  const auto& drawn = page.at("modules")[0].at("figures");
  REQUIRE(drawn.size() == 2);
  CHECK(drawn[0].at("none") == "");
  CHECK(drawn[1].at("figures").empty());
  CHECK(drawn[1].at("none") == "its process was killed by signal 11");
}

TEST_CASE("the stack's memory against attention in every layer stands in report.json, measured for the regimes that were judged") {
  const ModuleSuite& suite = *std::ranges::find(module_suites(), "HybridAttention", &ModuleSuite::name);
  const ModuleLaw& law = *std::ranges::find(suite.laws, "memory-is-counted-to-the-byte", &ModuleLaw::name);
  Results results;
  results.context.seed = 2;
  results.kernels.push_back(tally_of(suite));
  for (const char* regime : {"three-to-one", "one-to-one"}) add(results, case_of(run_module_case(suite, law, regime, 2)));
  results.figures = module_figures(results);
  const auto report = nlohmann::json::parse(to_report_json(results));
  const auto& figures = report.at("modules")[0].at("figures");
  REQUIRE(figures.size() == 2);
  for (const auto& line : figures) {
    const bool three = line.at("regime") == "three-to-one";
    CHECK(line.at("of them MLA") == (three ? 1 : 2));
    const double own = line.at("bytes"), all = line.at("bytes with MLA in every layer"), saved = line.at("saved, %");
    CHECK(all == 4.0 * 1024 * (5 + 2) * sizeof(float)); // layers, tokens, rank + K_shared
    CHECK(saved == Approx(100 * (1 - own / all)));
    CHECK(saved < (three ? 75 : 50));
    CHECK(saved > (three ? 72 : 48)); // what KDA's states take
    CHECK(line.at("bytes of all heads' keys and values") == 4.0 * 1024 * 2 * (4 + 2 + 3) * sizeof(float));
  }
}

TEST_CASE("a report with modules is read back as it was written") {
  const std::string text = to_report_json(judged());
  const Results back = results_from_report_json(text, "report.json");
  const auto module = std::ranges::find(back.kernels, true, &KernelTally::module);
  REQUIRE(module != back.kernels.end());
  CHECK(module->tally.counts.cases() == 2);
  CHECK(to_report_json(back) == text);
}

TEST_CASE("a module's token leads back to its case, and a wrong one is refused in a sentence") {
  const auto result = replayed_module_case("module.FineGrainedGating:gates-stay-in-range:softplus:4");
  REQUIRE(result.has_value());
  CHECK(module_token(*result) == "module.FineGrainedGating:gates-stay-in-range:softplus:4");
  CHECK(result->finding.verdict == Verdict::passed);
  const auto planted = replayed_module_case("module.FineGrainedGating:agrees-with-the-oracle:softplus:4:a-log-ignored");
  CHECK(is_failure(planted->finding.verdict));
  CHECK_FALSE(replayed_module_case("cpu.chunk64.fp32:causal:k1,x").has_value());
  for (const char* wrong :
       {"module.None:causal:packed:1", "module.FineGrainedGating:causal:packed:1", "module.FineGrainedGating:causal:softplus:x",
        "module.FineGrainedGating:causal", "module.FineGrainedGating:causal:softplus:1:no-such-fault"})
    CHECK_THROWS_AS(replayed_module_case(wrong), std::invalid_argument);
}
