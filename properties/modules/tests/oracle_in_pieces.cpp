// The oracle over a call in pieces gives as many numbers as the oracle over the whole call; were there more, they would
// be shifted, the spread about the truth, and so what a module may err, would be large for no reason.

#include "../oracle_in_pieces.hpp"

#include <catch2/catch.hpp>

using namespace kdacheck;

TEST_CASE("in pieces, empty ones and those of empty sequences too, an oracle gives as many numbers as of the whole call") {
  const ModuleArithmetic plain{.kind = ModuleArithmetic::Kind::fp64};
  int compared = 0;
  for (const ModuleSuite& suite : module_suites())
    for (const ModuleRegime& regime : suite.regimes) {
      if (regime.name != "packed" || suite.laws.size() < 2) continue;
      const ModuleCase c = suite.draw(regime.name, 1);
      if (!c.oracle.evaluate || !c.module.backward) continue;
      INFO(suite.name);
      const Cuts cuts = [](std::int64_t length) { return std::vector<std::int64_t>{0, length / 2, length, length}; };
      const modules::NamedTensors states = c.module.forward(c.call).states;
      const ExactTensors whole = c.oracle.evaluate(c.call, nullptr, plain), pieces = evaluated_in_pieces(c, nullptr, plain, cuts, states);
      REQUIRE(pieces.states.size() == whole.states.size());
      for (std::size_t n = 0; n < whole.states.size(); ++n, ++compared) CHECK(pieces.states[n].size() == whole.states[n].size());
    }
  CHECK(compared >= 4 + 2 + 14);
}
