#pragma once
// Which modules a selection means.

#include "../properties/modules/module_campaign.hpp"
#include "commands.hpp"

namespace kdacheck {

/// --module names them; without it all run, unless the selection narrows kernels, properties or regimes or `foreign` kernels or
/// inputs are judged. Throws UsageError where a glob matches nothing.
ModulePlan module_plan(const CaseSelection&, bool foreign);

} // namespace kdacheck
