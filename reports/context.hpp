#pragma once
// Where and with what a run was made.

#include <cstdint>
#include <string>

namespace kdacheck {

/// Empty strings where a thing is not there (no GPU, no git).
struct Context {
  std::string host, cpu;
  int threads = 0;         ///< hardware threads that this process may use
  std::string gpu, driver; ///< of the first NVIDIA device
  std::string commit;      ///< short hash, "-dirty" if sources were changed
  std::string compiler;    ///< with version
  std::string build;       ///< build type and floating-point flags
  std::string program;     ///< first 16 hex digits of the program file's sha256: cases of another program do not count on resuming
  std::string started;     ///< UTC, 2026-01-31T12:00:00Z
  std::string command;     ///< as typed
  std::string replay{"./kdacheck replay"}; ///< a token after it is a command; it names the run's foreign kernels (replay_prefix)
  std::string tier;
  std::uint64_t seed = 0;
};

/// Looks at this machine and this program. Leaves command, tier and seed to the caller.
Context this_context();

} // namespace kdacheck
