#pragma once
// A trespass that leaves nothing else to judge.

#include <stdexcept>

namespace kdacheck {

/// What a kernel in a process of its own did that no kernel may, in a sentence, where it left no result that could be looked at besides.
/// With a result it is a KernelTrespassed, which the laws about memory report; this is the verdict of every law.
struct KernelBrokeLaw : std::runtime_error {
  using std::runtime_error::runtime_error;
};

} // namespace kdacheck
