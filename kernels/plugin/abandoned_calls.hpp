#pragma once
// A run that is to end does not wait for foreign kernels: calls in flight are given up.

namespace kdacheck {

/// Thrown by a call of a foreign kernel that was given up. It says nothing about the kernel and is no std::exception: what turns
/// those into verdicts lets it through.
struct CallAbandoned {};

/// Whether foreign kernels are called at all (as at first). Once they are not, every call in flight and to come throws
/// CallAbandoned at once and its process is ended. May be called by a signal handler after the first time.
void make_calls(bool) noexcept;

/// A descriptor that can be read from while no calls are made, for poll. -1: there is none on this machine.
int no_more_calls();

} // namespace kdacheck
