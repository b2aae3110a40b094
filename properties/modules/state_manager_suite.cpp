// StateManager under test.

#include "../../kernels/faults/state_faults.hpp"
#include "drawn_tensors.hpp"
#include "state_laws.hpp"
#include "suites.hpp"

namespace kdacheck {
namespace {

/// Tokens that the laws step through: the manager starts from zero, and its laws need no oracle.
ModuleCase draw(std::string_view regime, std::uint64_t seed) {
  ModuleCase c;
  c.call.cu_seqlens = offsets_of({13});
  const std::int64_t R = c.call.rows(), H = 2, K = 6, V = 5;
  double least = 0.6, most = 1, beta = 1, size = 0.7;
  if (regime == "heavy-forgetting") least = 0, most = 1e-3;
  if (regime == "minimal-forgetting") least = 0.9999;
  if (regime == "reflections") beta = 2;
  if (regime == "long-keys") size = 1.5;
  c.call.inputs = {drawn_tensor("alpha", {R, H, K}, least, most, seed, 1), drawn_tensor("k", {R, H, K}, -size, size, seed, 2),
                   drawn_tensor("beta", {R, H}, 0, beta, seed, 3), drawn_tensor("v", {R, H, V}, -1, 1, seed, 4)};
  return c;
}

} // namespace

ModuleSuite state_manager_suite() {
  ModuleSuite suite{.name = "StateManager",
                    .summary = "states of a batch with checkpoints and repairs",
                    .source = "arXiv 2510.26692, eq. 1",
                    .regimes = {{"usual", "alpha from 0.6 to 1"},
                                {"heavy-forgetting", "alpha to 1e-3"},
                                {"minimal-forgetting", "alpha above 0.9999"},
                                {"reflections", "beta to 2: negative eigenvalues"},
                                {"long-keys", "|k| beyond 1: the state may grow"}},
                    .laws = state_laws(),
                    .faults = {},
                    .draw = draw};
  for (const StateFaultInfo& fault : state_faults())
    suite.faults.push_back({std::string(fault.name), std::string(fault.origin), std::string(fault.what)});
  return suite;
}

} // namespace kdacheck
