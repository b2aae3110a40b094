#include "../golden_set.hpp"

#include <catch2/catch.hpp>

#include <nlohmann/json.hpp>

#include <fstream>
#include <set>
#include <sstream>

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

TEST_CASE("the starter set holds every case on which a kernel was once wrong") {
  std::ifstream list(std::filesystem::path(KDACHECK_GOLDEN) / "faults.txt");
  std::size_t faults = 0;
  for (std::string line; std::getline(list, line);) {
    if (line.starts_with('#')) continue;
    std::istringstream words(line);
    std::string name, dtype, token;
    words >> name >> dtype >> token;
    INFO(name);
    std::ifstream file(std::filesystem::path(KDACHECK_GOLDEN) / "starter" / name / "manifest.json");
    REQUIRE(file);
    const auto manifest = nlohmann::json::parse(file);
    CHECK(manifest["token"] == token);
    CHECK(manifest["formats"]["qkv"] == dtype);
    ++faults;
  }
  CHECK(faults >= 5);
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
