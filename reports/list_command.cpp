#include "commands.hpp"

#include "../kernels/faults/faults.hpp"
#include "../properties/cases/recipe.hpp"
#include "../properties/modules/module_suite.hpp"
#include "../properties/property.hpp"
#include "context.hpp"

#include <fmt/format.h>
#include <omp.h>

#include <unistd.h>

namespace kdacheck {

int list_command(const std::string& what) {
  if (what == "kernels")
    for (const Kernel& kernel : built_in_kernels())
      fmt::print("{:<32} {}\n{:<32} {}\n", kernel.name, kernel.summary, kernel.backward ? "  forward, backward" : "  forward",
                 to_text(kernel.contract));
  else if (what == "modules")
    for (const ModuleSuite& suite : module_suites()) {
      fmt::print("{}: {}\n  source: {}\n", suite.name, suite.summary, suite.source);
      for (const ModuleLaw& law : suite.laws) fmt::print("  law     {:<36} {}\n", law.name, law.claim);
      for (const ModuleRegime& regime : suite.regimes) fmt::print("  regime  {:<36} {}\n", regime.name, regime.why);
      for (const ModuleFault& fault : suite.faults) fmt::print("  fault   {:<36} {}\n", fault.name, fault.what);
    }
  else if (what == "properties")
    for (const Property& property : properties())
      fmt::print("{:<52} {:<9} {}\n", property.name, property.direction == Direction::forward ? "forward" : "backward", property.claim);
  else if (what == "regimes")
    for (const Regime& regime : regimes()) fmt::print("{:<34} {}\n", regime.name, regime.why);
  else {
    for (const FaultInfo& fault : planted_kernels()) fmt::print("{:<34} {:<42} {}\n", fault.name, fault.origin, fault.what);
    for (const ModuleSuite& suite : module_suites())
      for (const ModuleFault& fault : suite.faults)
        fmt::print("{:<34} {:<42} {}\n", suite.name + "." + fault.name, fault.origin, fault.what);
  }
  return 0;
}

int doctor_command() {
  const Context context = this_context();
  const auto pages = static_cast<double>(sysconf(_SC_PHYS_PAGES)), page = static_cast<double>(sysconf(_SC_PAGESIZE));
  std::size_t backward = 0;
  for (const Kernel& kernel : built_in_kernels()) backward += kernel.backward ? 1 : 0;
  fmt::print("processor   {}, {} threads, {:.1f} GiB of memory\n", context.cpu, omp_get_max_threads(), pages * page / (1 << 30));
  fmt::print("program     commit {}, {}, {}\n", context.commit.empty() ? "unknown" : context.commit, context.compiler, context.build);
  fmt::print("GPU         {}\n", context.gpu.empty() ? "none found: CUDA kernels are built where a toolkit is, and not run here"
                                                     : context.gpu + ", driver " + context.driver);
  fmt::print("kernels     {} built in, {} of them with a backward pass\n", built_in_kernels().size(), backward);
  std::size_t laws = 0, faults = planted_kernels().size();
  for (const ModuleSuite& suite : module_suites()) laws += suite.laws.size(), faults += suite.faults.size();
  fmt::print("modules     {}, with {} laws\n", module_suites().size(), laws);
  fmt::print("gate        {} properties, {} regimes, {} planted faults\n", properties().size(), regimes().size(), faults);
  return built_in_kernels().empty() || properties().empty() || regimes().empty() ? 3 : 0;
}

} // namespace kdacheck
