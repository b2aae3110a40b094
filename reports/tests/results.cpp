#include "../results.hpp"
#include "../report_json.hpp"
#include "../summary_markdown.hpp"
#include "../table.hpp"
#include "../words.hpp"
#include "sample_results.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

using namespace kdacheck;
using Json = nlohmann::json;

TEST_CASE("a kernel's worst case is the gravest verdict, then the largest error over bound") {
  const Results results = sample_results();
  CHECK(results.kernels[0].tally.worst->finding.bound_util == 0.75);
  CHECK(results.kernels[0].tally.verdict() == Verdict::passed);
  CHECK(results.kernels[1].tally.verdict() == Verdict::crashed);
  CHECK(results.groups.at({"cpu.wrong", "agrees-with-the-oracle", "slow-decay"}).verdict() == Verdict::failed_proved);
  CHECK(results.groups.at({"cpu.wrong", "agrees-with-the-oracle", "slow-decay"}).counts.cases() == 2);
}

TEST_CASE("a NaN error over bound is worse than any number") {
  Results results;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double bound_util : {1.0, nan, 2.0, std::numeric_limits<double>::infinity()})
    add(results, sample_case("k", Verdict::failed_property, bound_util));
  CHECK(std::isnan(results.kernels[0].tally.worst->finding.bound_util));
}

TEST_CASE("the exit status is 1 for a failure, 4 if stopped, 5 if nothing passed and 0 only otherwise") {
  Results results;
  CHECK(exit_status(results) == 5);
  add(results, sample_case("k", Verdict::not_supported, 0));
  CHECK(exit_status(results) == 5);
  add(results, sample_case("k", Verdict::inconclusive, 0));
  CHECK(exit_status(results) == 5);
  add(results, sample_case("k", Verdict::passed, 0));
  CHECK(exit_status(results) == 0);
  results.outcome.stopped = true;
  CHECK(exit_status(results) == 4);
  for (Verdict verdict : all_verdicts) {
    Results one = results;
    add(one, sample_case("k", verdict, 0));
    CHECK(exit_status(one) == (is_failure(verdict) ? 1 : 4));
  }
}

TEST_CASE("a contract in short names what differs and nothing else") {
  Contract contract;
  CHECK(in_short(contract) == "fp32, C=64");
  contract.operands = contract.scores = Format::tf32;
  CHECK(in_short(contract) == "fp32 in, tf32 mma, C=64");
  contract.input = contract.operands = contract.scores = Format::bf16;
  contract.chunk = 32;
  CHECK(in_short(contract) == "bf16 mma, C=32");
  contract.scores = Format::tf32;
  contract.state = Format::bf16;
  contract.order = Order::wy;
  CHECK(in_short(contract) == "bf16/tf32 mma, bf16 state, C=32, wy");
  contract.order = Order::recurrence;
  contract.rules = {Rule::dplr};
  contract.operands = contract.scores = contract.state = Format::fp32;
  CHECK(in_short(contract) == "DPLR bf16, recurrence");
  contract.accumulate = Format::fp64;
  contract.state_v_first = true;
  CHECK(in_short(contract) == "DPLR bf16, fp64 sums, recurrence, V-first");
}

TEST_CASE("among passed cases the worst is one that names a tensor, however large a law's own figure") {
  Results results;
  CaseResult law = sample_case("k", Verdict::passed, 0.999), error = sample_case("k", Verdict::passed, 0.25);
  error.finding.place = Place{.tensor = "o"};
  for (const CaseResult& result : {law, error, law}) add(results, result);
  CHECK(results.kernels[0].tally.worst->finding.bound_util == 0.25);
  add(results, sample_case("k", Verdict::inconclusive, 0));
  CHECK(results.kernels[0].tally.verdict() == Verdict::inconclusive);
}

TEST_CASE("report.json holds the keys that other programs rely on") {
  const Json report = Json::parse(to_report_json(sample_results()));
  CHECK(report.at("schema_version") == 1);
  for (const char* key : {"host", "gpu", "driver", "commit", "compiler", "seed", "tier"}) CHECK(report.at("context").contains(key));
  CHECK(report["context"]["gpu"].is_null());
  CHECK(report["context"]["seed"] == 18446744073709551615u);
  CHECK(report.at("summary").at("cases") == 10);
  std::size_t sum = 0;
  for (Verdict verdict : all_verdicts) sum += report["summary"].at(std::string(name(verdict))).get<std::size_t>();
  CHECK(sum == 10);
  REQUIRE(report.at("kernels").size() == 3);
  const Json& wrong = report["kernels"][1];
  CHECK(wrong.at("name") == "cpu.wrong");
  CHECK(wrong.at("contract") == "input=bf16");
  CHECK(wrong.at("verdict") == "crashed");
  CHECK(wrong.at("cases") == 7);
  for (const char* key : {"bound_util", "output", "regime", "property", "replay"}) CHECK(wrong.at("worst").contains(key));
  CHECK(wrong["worst"]["output"] == "final_state");
  CHECK(report["kernels"][2]["worst"].is_null());
  CHECK(report["kernels"][2]["verdict"] == "not_supported");
}

TEST_CASE("infinite and undefined numbers survive report.json as strings") {
  Results results;
  add(results, sample_case("a", Verdict::failed_property, std::numeric_limits<double>::infinity()));
  add(results, sample_case("b", Verdict::failed_property, std::numeric_limits<double>::quiet_NaN()));
  const std::string text = to_report_json(results);
  CHECK(Json::parse(text)["kernels"][0]["worst"]["bound_util"] == "Infinity");
  CHECK(Json::parse(text)["kernels"][1]["worst"]["bound_util"] == "NaN");
  const Results back = results_from_report_json(text, "report.json");
  CHECK(std::isinf(back.kernels[0].tally.worst->finding.bound_util));
  CHECK(std::isnan(back.kernels[1].tally.worst->finding.bound_util));
}

TEST_CASE("report.json read back and written again is the same text") {
  const std::string text = to_report_json(sample_results());
  const Results back = results_from_report_json(text, "report.json");
  CHECK(back.context.seed == 18446744073709551615u);
  CHECK(total(back).failures() == 5);
  Json first = Json::parse(text), second = Json::parse(to_report_json(back));
  for (Json* report : {&first, &second}) // only the wording of places is not read back
    for (const char* list : {"kernels", "groups"})
      for (Json& entry : (*report)[list])
        if (!entry["worst"].is_null()) entry["worst"].erase("place");
  CHECK(first == second);
}

TEST_CASE("groups share their recipes, and every token comes back whole") {
  Results results;
  for (const std::string property : {"agrees-with-the-oracle", "linear-in-scale"})
    for (const std::string kernel : {"a", "b"}) {
      CaseResult result = sample_case(kernel, Verdict::passed, 0.5);
      result.property = property;
      result.replay = kernel + ":" + property + ":k1,a-recipe,T=7,0badcafe";
      add(results, result);
    }
  CaseResult wrong = sample_case("b", Verdict::failed_proved, 3);
  wrong.replay = "b:agrees-with-the-oracle:k1,another,T=9,0badcafe";
  add(results, wrong);
  const std::string text = to_report_json(results);
  const Json report = Json::parse(text);
  REQUIRE(report.at("recipes").size() == 1);
  CHECK(report["recipes"][0] == "k1,a-recipe,T=7,0badcafe");
  const Results back = results_from_report_json(text, "report.json");
  REQUIRE(back.groups.size() == 4);
  for (const auto& [key, tally] : results.groups) {
    CHECK(back.groups.at(key).worst->replay == tally.worst->replay);
    CHECK(back.groups.at(key).verdict() == tally.verdict());
    CHECK(back.groups.at(key).counts.by_verdict == tally.counts.by_verdict);
  }
  bool in_full = false; // a failure's token is found by searching the file
  for (const Json& group : report["groups"]) in_full = in_full || group["worst"].value("replay", "") == wrong.replay;
  CHECK(in_full);
}

TEST_CASE("a group takes at most 250 bytes of the report, even with the longest names") {
  Results results;
  const std::string recipe = ":k1,packed-single-tokens,T=40,K=11,V=33,scale=1.34bf64p-2,gates=jitter,decay=1.99999ap-5,"
                             "decay_spread=1p+0,state=gaussian,loss=everywhere,seed=48339072,c6e23e";
  for (int kernel = 0; kernel < 19; ++kernel)
    for (int property = 0; property < 21; ++property)
      for (int regime = 0; regime < 33; ++regime) {
        CaseResult result = sample_case("cpu.chunk64.bf16_state" + std::to_string(kernel), Verdict::passed, 0.123456789012345678);
        result.property = "gradients-are-right-at-every-length" + std::to_string(property);
        result.regime = "packed-single-tokens" + std::to_string(regime);
        result.finding.place = Place{.tensor = "final_state"};
        result.replay = result.kernel + ":" + result.property + recipe + std::to_string(regime);
        add(results, result);
      }
  CHECK(results.groups.size() > 13000);
  CHECK(to_report_json(results).size() < 250 * results.groups.size());
}

TEST_CASE("what is not a report is refused in one sentence that names it") {
  CHECK_THROWS_WITH(results_from_report_json("{", "x.json"), "x.json is not a report of this suite");
  CHECK_THROWS_WITH(results_from_report_json("{}", "x.json"), "x.json is not a report of this suite");
  CHECK_THROWS_WITH(results_from_report_json(R"({"schema_version": 7})", "x.json"),
                    "x.json has schema version 7; this program reads version 1");
  std::string text = to_report_json(sample_results());
  text.replace(text.rfind("\"verdict\": \"crashed\""), 20, "\"verdict\": \"melted\"");
  CHECK_THROWS_WITH(results_from_report_json(text, "x.json"), "x.json has the unknown verdict \"melted\"");
}

TEST_CASE("names that are not UTF-8 still give a report that parses") {
  Results results;
  add(results, sample_case("bad\xff\"name\n", Verdict::passed, 0.5));
  CHECK(Json::parse(to_report_json(results))["kernels"].size() == 1);
}

TEST_CASE("cases whose oracle took more than fp64 are counted by arithmetic, and every writer says so") {
  Results results = sample_results();
  CHECK(console_table(results, {}).find("oracle beyond fp64") == std::string::npos);
  CaseResult finer = sample_case("cpu.right", Verdict::passed, 0.5);
  for (const char* oracle : {"double_double", "double_double", "226 bits"}) {
    finer.finding.oracle = oracle;
    add(results, finer);
  }
  const std::string said = "oracle beyond fp64: 1 case in 226 bits, 2 cases in double_double";
  CHECK(spoken_escalation(results) == said);
  CHECK(console_table(results, {}).find(said + "\n") != std::string::npos);
  CHECK(to_summary_markdown(results).find("2 cases in double\\_double") != std::string::npos);
  const std::string text = to_report_json(results);
  CHECK(Json::parse(text)["escalated"]["double_double"] == 2);
  CHECK(results_from_report_json(text, "report.json").escalated == results.escalated);
}
