#include "../golden_set.hpp"
#include "../listed_cases.hpp"

#include <catch2/catch.hpp>

#include <nlohmann/json.hpp>

#include <fstream>
#include <iterator>
#include <set>

using namespace kdacheck;

namespace {

nlohmann::json manifest_of_case(const std::string& name) {
  INFO(name << ": golden/starter.sh makes what is missing");
  std::ifstream file(std::filesystem::path(KDACHECK_GOLDEN) / "starter" / name / "manifest.json");
  REQUIRE(file);
  return nlohmann::json::parse(file);
}

} // namespace

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

TEST_CASE("the starter set holds every case on which a kernel was once wrong") {
  std::ifstream list(std::filesystem::path(KDACHECK_GOLDEN) / "faults.txt");
  const auto faults = parse_listed_cases(std::string{std::istreambuf_iterator<char>(list), {}}, "faults.txt");
  CHECK(faults.size() >= 5);
  for (const ListedCase& fault : faults) {
    const auto manifest = manifest_of_case(fault.name);
    CHECK(manifest["token"] == to_token(fault.recipe));
    CHECK(manifest["formats"]["qkv"] == name(fault.dtype));
    CHECK(manifest["why"] == fault.why);
    CHECK(fault.why.find("wrong here") != std::string::npos);
  }
}

TEST_CASE("the starter set holds every recipe that verify always runs, with the reason why") {
  const auto listed = listed_found_cases();
  CHECK(listed.size() > 100);
  for (const ListedCase& each : listed) {
    const auto manifest = manifest_of_case(each.name);
    CHECK(manifest["token"] == to_token(each.recipe));
    CHECK(manifest["why"] == each.why);
    CHECK(each.why.size() > 10);
  }
}

TEST_CASE("the starter set has every option: both passes, decode chains, packing, groups, the general form, each gate and beta") {
  std::set<std::string> seen;
  for (const auto& folder : golden_cases(std::filesystem::path(KDACHECK_GOLDEN) / "starter")) {
    std::ifstream file(folder / "manifest.json");
    const auto manifest = nlohmann::json::parse(file);
    const Recipe recipe = from_token(manifest["token"].get<std::string>());
    seen.insert("gate " + std::string(name(recipe.options.gate)));
    seen.insert("beta " + std::string(name(recipe.options.beta)));
    if (recipe.options.rule == Rule::dplr) seen.insert("general form");
    if (recipe.options.l2norm) seen.insert("l2norm");
    if (recipe.shape.HV > recipe.shape.H) seen.insert("groups");
    if (recipe.lengths.size() > 1) seen.insert("packing");
    for (const auto& tensor : manifest["tensors"])
      for (const auto& [part, means] : {std::pair{"dq.high", "backward"},
                                        {"o.high", "forward"},
                                        {"states.high", "decode chain"},
                                        {"chunk.0.Akk.high", "intermediates"},
                                        {"initial_state", "initial state"}})
        if (tensor["name"] == part) seen.insert(means);
  }
  for (const char* option : {"forward", "backward", "decode chain", "packing", "groups", "general form", "l2norm", "intermediates",
                             "initial state", "gate log_decay", "gate softplus", "gate bounded", "gate sigmoid", "gate absent",
                             "beta value", "beta sigmoid", "beta twice_sigmoid"}) {
    INFO(option);
    CHECK(seen.contains(option));
  }
}

TEST_CASE("the starter set stays under 20 MB") {
  std::uintmax_t bytes = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(std::filesystem::path(KDACHECK_GOLDEN) / "starter"))
    if (entry.is_regular_file()) bytes += entry.file_size();
  CHECK(bytes > 0);
  CHECK(bytes < 20'000'000);
}
