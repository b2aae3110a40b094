// Modules stand in report.json under keys of their own, with a line per law and regime, and come back as they were.

#include "../report_json.hpp"

#include "../../properties/modules/module_campaign.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
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
