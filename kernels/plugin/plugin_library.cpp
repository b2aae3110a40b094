#include "plugin_library.hpp"

#include <dlfcn.h>

#include <stdexcept>

namespace kdacheck::plugin {
namespace {

constexpr std::uint32_t most_kernels = 65536;

/// kdacheck_kernel as version 1 had it.
struct KernelOfVersion1 {
  const char* name;
  const char* summary;
  const char* contract;
  size_t (*workspace_bytes)(const kdacheck_inputs*, int backward);
  kdacheck_forward_fn forward;
  kdacheck_backward_fn backward;
};

kdacheck_kernel today(const KernelOfVersion1& old) {
  return {.name = old.name,
          .summary = old.summary,
          .contract = old.contract,
          .workspace_bytes = old.workspace_bytes,
          .forward = old.forward,
          .backward = old.backward,
          .decode = nullptr};
}

} // namespace

PluginLibrary load_plugin(const char* path) {
  void* handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!handle) throw std::runtime_error(std::string("cannot be loaded: ") + dlerror());
  using Entry = const kdacheck_library* (*)(std::uint32_t);
  const auto entry = reinterpret_cast<Entry>(dlsym(handle, "kdacheck_plugin"));
  if (!entry) throw std::runtime_error("does not export kdacheck_plugin");
  for (std::uint32_t version = KDACHECK_PLUGIN_VERSION; version >= 1; --version) {
    const kdacheck_library* library = entry(version);
    if (!library || library->version != version) continue;
    if (library->count > most_kernels || (library->count > 0 && !library->kernels))
      throw std::runtime_error("says that it has " + std::to_string(library->count) + " kernels, and has no such table of them");
    PluginLibrary loaded{.kernels = {}, .version = version};
    for (std::uint32_t i = 0; i < library->count; ++i)
      loaded.kernels.push_back(version == 1 ? today(reinterpret_cast<const KernelOfVersion1*>(library->kernels)[i]) : library->kernels[i]);
    return loaded;
  }
  throw std::runtime_error("does not speak version " + std::to_string(KDACHECK_PLUGIN_VERSION) +
                           " or an older one of the plug-in interface");
}

} // namespace kdacheck::plugin
