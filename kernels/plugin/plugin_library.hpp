#pragma once
// A loaded plug-in library, of whichever version of the interface it speaks.

#include "kdacheck_plugin.h"

#include <string>
#include <vector>

namespace kdacheck::plugin {

struct PluginLibrary {
  std::vector<kdacheck_kernel> kernels; ///< members that its version does not have are null
  std::uint32_t version = 0;
};

/// Loads the library and agrees on a version, the newest first. Throws std::runtime_error with one sentence.
PluginLibrary load_plugin(const char* path);

} // namespace kdacheck::plugin
