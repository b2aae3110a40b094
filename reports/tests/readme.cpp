#include "../../kernels/contract.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>

using namespace kdacheck;

TEST_CASE("README explains every key of a contract") {
  std::ifstream file(KDACHECK_README);
  const std::string readme{std::istreambuf_iterator<char>(file), {}};
  Contract unusual;
  for (Format Contract::*format : {&Contract::input, &Contract::gate_input, &Contract::beta_input, &Contract::output, &Contract::operands,
                                   &Contract::accumulate, &Contract::cumsum, &Contract::solve, &Contract::state, &Contract::gradient})
    unusual.*format = Format::bf16;
  unusual.scores = Format::fp16;
  unusual.truncate = unusual.l2norm_inside = unusual.state_v_first = unusual.strided = true;
  unusual.grouped = unusual.packed = unusual.initial_state = false;
  unusual.exp_ulp = 1;
  unusual.order = Order::wy;
  unusual.chunk = 16;
  unusual.repeat = unusual.batch = unusual.prefix = Sameness::none;
  unusual.rules = {Rule::dplr};
  unusual.gates = {GateForm::softplus};
  unusual.betas = {BetaForm::sigmoid};
  unusual.K = unusual.V = unusual.T = {1, 2, 1};
  unusual.g_min = unusual.beta_min = -1;
  unusual.beta_max = unusual.k_norm_max = unusual.value_max = 2;
  unusual.validates = false;
  std::istringstream words(to_text(unusual));
  std::size_t keys = 0;
  for (std::string word; words >> word; ++keys) {
    const std::string key = word.substr(0, word.find('='));
    INFO(key);
    CHECK(readme.find("`" + key + "`") != std::string::npos);
  }
  CHECK(keys == 36);
}

TEST_CASE("every module that README lists has an example under 40 lines") {
  std::ifstream file(KDACHECK_README);
  const std::string readme{std::istreambuf_iterator<char>(file), {}};
  std::string table = readme.substr(readme.find("| module | header |")), listed = table.substr(0, table.find("\n\n"));
  const auto folder = std::filesystem::path(KDACHECK_README).parent_path() / "kernels/modules/examples";
  int examples = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().stem().string();
    INFO(name);
    CHECK(listed.find("`" + name + ".hpp`") != std::string::npos);
    std::ifstream source(entry.path());
    CHECK(std::count(std::istreambuf_iterator<char>(source), {}, '\n') < 40);
    ++examples;
  }
  CHECK(examples == std::count(listed.begin(), listed.end(), '\n') - 1); // a heading and a rule, and no line end after the last row
}
