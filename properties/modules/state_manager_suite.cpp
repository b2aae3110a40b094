// StateManager under test.

#include "../../kernels/faults/state_faults.hpp"
#include "state_laws.hpp"
#include "step_regimes.hpp"
#include "suites.hpp"

namespace kdacheck {
namespace {

/// Tokens that the laws step through: the manager starts from zero, and its laws need no oracle.
ModuleCase draw(std::string_view regime, std::uint64_t seed) {
  ModuleCase c;
  c.call.cu_seqlens = offsets_of({13});
  c.call.inputs = step_inputs(regime, c.call.rows(), 2, 6, 5, seed);
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
