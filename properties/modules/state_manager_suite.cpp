// StateManager under test.

#include "../../kernels/faults/state_faults.hpp"
#include "../../kernels/modules/plain_modules.hpp"
#include "in_arithmetic.hpp"
#include "state_laws.hpp"
#include "step_regimes.hpp"
#include "suites.hpp"
#include "transition_oracle.hpp"

namespace kdacheck {
namespace {

constexpr modules::StateShape shape{.B = 2, .H = 2, .K = 6, .V = 5};

/// Tokens that the laws step through: a batch of two sequences, from zero, where they ask the oracle.
ModuleCase draw(std::string_view regime, std::uint64_t seed) {
  ModuleCase c;
  c.module = modules::state_manager_module(shape.H, shape.K, shape.V);
  c.call.cu_seqlens = offsets_of({13, 13});
  c.call.inputs = step_inputs(regime, c.call.rows(), shape.H, shape.K, shape.V, seed);
  c.oracle = {.orders = 1, .evaluate = [](const modules::ModuleCall& call, const modules::ModuleCotangents* d, const ModuleArithmetic& a) {
                return in_arithmetic(a, [&]<class N>() { return transition_oracle<N>(Rule::kda, shape, call, d); });
              }};
  return c;
}

} // namespace

ModuleSuite state_manager_suite() {
  ModuleSuite suite{.name = "StateManager",
                    .summary = "states of a batch with checkpoints and repairs",
                    .source = "arXiv 2510.26692, eq. 1",
                    .regimes = step_regimes(),
                    .laws = state_laws(),
                    .faults = {},
                    .draw = draw};
  for (const StateFaultInfo& fault : state_faults())
    suite.faults.push_back({std::string(fault.name), std::string(fault.origin), std::string(fault.what)});
  return suite;
}

} // namespace kdacheck
