#include "../proved_bound.hpp"
#include "../compare.hpp"
#include "../judge.hpp"
#include "drawn_problem.hpp"

#include "../../kernels/kernel.hpp"

#include <algorithm>
#include <catch2/catch.hpp>

using namespace kdacheck;
using namespace kdacheck::testing;

namespace {

const Kernel& recurrence() {
  const auto kernels = built_in_kernels();
  return *std::find_if(kernels.begin(), kernels.end(), [](const Kernel& kernel) { return kernel.name == "cpu.recurrence.fp32"; });
}

Contract token_by_token() {
  Contract contract = recurrence().contract;
  contract.order = Order::recurrence;
  contract.chunk = 1;
  return contract;
}

} // namespace

TEST_CASE("the fp32 recurrence stays inside its proved bound at every decay, beta and length") {
  double closest = 0;
  for (double decay : {0.0, 1e-3, 0.5, 6.0, 100.0})
    for (double beta : {1e-4, 1.0, 2.0})
      for (std::int64_t T : {1, 30, 300})
        for (std::uint64_t seed : {1, 2}) {
          Drawn drawn;
          drawn.shape = {.B = 1, .T = T, .H = 1, .HV = 2, .K = 24, .V = 9};
          drawn.decay = decay, drawn.beta_most = beta, drawn.correlation = seed == 2 ? 0.9 : 0, drawn.seed = seed;
          const Problem problem = draw(drawn);
          const Truth truth = forward_truth(problem, Arithmetic::double_double);
          const Budget budget = forward_budget(token_by_token(), problem, truth, 1, 8);
          const Comparison c = compare_forward(token_by_token(), problem, truth, budget, run_forward(recurrence(), problem));
          INFO("decay " << decay << " beta to " << beta << " T " << T);
          CHECK(c.proved < 1);
          closest = std::max(closest, c.proved);
        }
  CHECK(closest > 1e-3); // a bound that nothing comes near proves nothing
}

TEST_CASE("an error that no rounding explains is refused as proved, at its place") {
  const Problem problem = draw({});
  const ProvedBound bound = proved_bound(token_by_token(), problem);
  REQUIRE(bound.token.size() == static_cast<std::size_t>(problem.shape.T));
  Run run = run_forward(recurrence(), problem);
  run.o[static_cast<std::size_t>(23 * problem.shape.V + 4)] += static_cast<float>(3 * bound.token[23]);
  Judge judge;
  const Finding finding = judge.forward(token_by_token(), problem, run);
  CHECK(finding.verdict == Verdict::failed_proved);
  REQUIRE(finding.place);
  CHECK(finding.place->token == 23);
  CHECK(finding.place->channel == 4);
}

TEST_CASE("no bound is claimed where none was derived") {
  const Problem problem = draw({});
  Contract contract = token_by_token();
  contract.order = Order::undeclared;
  CHECK(proved_bound(contract, problem).token.empty());
  contract = token_by_token();
  contract.operands = Format::bf16;
  CHECK(proved_bound(contract, problem).token.empty());
}
