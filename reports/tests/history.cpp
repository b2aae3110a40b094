#include "../history.hpp"
#include "../commands.hpp"
#include "sample_results.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

using namespace kdacheck;

namespace {

PastRun run_of(std::string folder, std::string started, double util, Verdict verdict = Verdict::passed) {
  PastRun run{std::move(folder), {}};
  run.results.context.started = std::move(started);
  run.results.context.tier = "quick";
  add(run.results, sample_case("k", verdict, util));
  return run;
}

} // namespace

TEST_CASE("runs stand oldest first, each with its kernels' worst error, and a kernel that a run lacks has none there") {
  std::vector<PastRun> runs{run_of("new", "2026-02-01T00:00:00Z", 2, Verdict::failed_proved), run_of("old", "2026-01-01T00:00:00Z", 0.5)};
  add(runs[0].results, sample_case("other", Verdict::passed, 0.25));
  sort_by_start(runs);
  CHECK(runs[0].folder == "old");
  const auto page = nlohmann::json::parse(to_history_json(runs));
  CHECK(page["same_cases"] == true);
  CHECK(page["kernels"][0]["util"] == nlohmann::json{0.5, 2.0});
  CHECK(page["kernels"][0]["failures"] == nlohmann::json{0, 1});
  CHECK(page["kernels"][1]["util"] == nlohmann::json{nullptr, 0.25});
  CHECK(to_text(runs).find("2.00!") != std::string::npos);
}

TEST_CASE("runs of another seed are said to have drawn other cases") {
  std::vector<PastRun> runs{run_of("a", "1", 0.5), run_of("b", "2", 0.5)};
  runs[1].results.context.seed = 7;
  CHECK(nlohmann::json::parse(to_history_json(runs))["same_cases"] == false);
}

TEST_CASE("a run that was stopped early is marked") {
  std::vector<PastRun> runs{run_of("whole", "1", 0.5), run_of("part", "2", 0.5)};
  runs[1].results.outcome.stopped = true;
  const auto page = nlohmann::json::parse(to_history_json(runs));
  CHECK(page["runs"][0]["stopped"] == false);
  CHECK(page["runs"][1]["stopped"] == true);
  const std::string text = to_text(runs);
  CHECK(text.find("  part  (stopped early)\n") != std::string::npos);
  CHECK(text.find("  whole\n") != std::string::npos);
}

TEST_CASE("a folder without results is refused by history") {
  CHECK_THROWS_WITH(history_command({.folders = {"/nonexistent"}, .history = true}), "there is no folder /nonexistent");
}
