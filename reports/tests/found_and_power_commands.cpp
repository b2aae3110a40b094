// Found cases of `verify`, and `gate-power`, as they are called from a shell.

#include "commands.hpp"

#include <nlohmann/json.hpp>

#include <fstream>

using namespace kdacheck::tests;

TEST_CASE("the cases that were found once are run where no regime is named, and where they are") {
  const Folder folder;
  const auto found_in = [&](const std::string& more) {
    run("verify --kernel cpu.recurrence.fp32 --property absent-gate-is-gate-zero --time-budget 2 " + more + "--out " +
        folder.path.string());
    std::ifstream log(folder.path / "cases.jsonl");
    const std::string cases((std::istreambuf_iterator<char>(log)), {});
    return contains(cases, "\"regime\":\"found-cases\"");
  };
  CHECK(found_in(""));
  CHECK(found_in("--regime found-cases "));
  CHECK_FALSE(found_in("--regime zero-keys "));
}

TEST_CASE("gate-power by a rule shows no error / bound, for a rule has none") {
  const Folder folder;
  const auto shown = [&](const std::string& more) {
    return run(
        "gate-power --fault no-decay --regime gaussian-keys --property agrees-with-the-oracle --kernel correct.fp32.chunk16 --seeds 1 " +
        more + "--out " + folder.path.string());
  };
  const Ended rule = shown("--rule rms_rel:0.005 ");
  INFO(rule.text);
  CHECK_FALSE(contains(rule.text, "error / bound"));
  std::ifstream file(folder.path / "power.json");
  CHECK(nlohmann::json::parse(file).at("correct").at(0).at("worst_bound_util").is_null());
  const Ended gate = shown("");
  INFO(gate.text);
  CHECK(contains(gate.text, "largest error / bound"));
  std::ifstream gate_file(folder.path / "power.json");
  const auto right = nlohmann::json::parse(gate_file).at("correct").at(0);
  CHECK(right.at("worst_bound_util") > 0);
  CHECK(right.at("agreement") == right.at("cases"));
  CHECK(right.at("regimes").at("gaussian-keys") == right.at("cases"));
}
