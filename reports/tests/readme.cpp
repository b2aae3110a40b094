#include "../../kernels/contract.hpp"

#include <catch2/catch.hpp>

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
