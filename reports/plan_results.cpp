#include "results.hpp"

namespace kdacheck {

KernelTally tally_of(const Kernel& kernel) {
  return {.name = kernel.name, .contract = to_text(kernel.contract), .in_short = in_short(kernel.contract)};
}

} // namespace kdacheck
