#include "right_kernels.hpp"

#include "../kernels/faults/correct_variants.hpp"
#include "../properties/selection.hpp"

namespace kdacheck {
namespace {

struct NamedRight {
  std::string name;
  const Kernel* kernel;
};

} // namespace

std::vector<const Kernel*> right_kernels(const std::vector<std::string>& patterns) {
  std::vector<NamedRight> named;
  for (std::span<const Kernel> kernels : {built_in_kernels(), correct_variants()})
    for (const Kernel& kernel : kernels) named.push_back({kernel.name, &kernel});
  std::vector<const Kernel*> chosen;
  for (const NamedRight* right : matching<NamedRight>("kernel", patterns, named)) chosen.push_back(right->kernel);
  return chosen;
}

} // namespace kdacheck
