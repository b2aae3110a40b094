#include "results.hpp"

#include "../properties/modules/module_campaign.hpp"

namespace kdacheck {

KernelTally tally_of(const Kernel& kernel) {
  return {.name = kernel.name, .contract = to_text(kernel.contract), .in_short = in_short(kernel.contract)};
}

KernelTally tally_of(const ModuleSuite& suite) {
  return {.name = name_in_reports(suite), .contract = suite.summary, .in_short = "module", .module = true};
}

} // namespace kdacheck
