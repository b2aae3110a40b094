#pragma once
// The process between the gate and a foreign program: whatever the program starts, and wherever that moves to, ends with it.

#include "child_process.hpp"

namespace kdacheck::plugin {

/// Runs `command` (looked up in PATH, NULL-terminated) as a child until it ends or the gate lets go of it, then ends every
/// process that it left behind, zombies included, and removes the folder (empty name: none). Descriptors: 3 socket of the
/// gate, 4 lifeline, which reads end-of-file when the gate lets go or is gone. `standard_error`: a descriptor that becomes
/// the command's, or -1: what the command writes there is read and dropped but for its end. That end, and why the command had to go,
/// are written to this process's standard error, a file, last of all. Ends as the command did: the same status or the same signal.
[[noreturn]] void supervise(Channel, int standard_error, const char* folder, char* const* command);

} // namespace kdacheck::plugin
