#pragma once
// The processes below this one, and the memory that they hold. This process is a subreaper: orphans become its children.

#include <cstdint>

namespace kdacheck::plugin {

/// Kills and reaps everything below this process, until there is nothing; first a process group, if one is named.
void end_all(int group);

/// Bytes that a machine, or the container that this process lives in, has in all.
std::int64_t memory_of_the_machine();

/// Bytes that are free or can be freed at once, on the machine. -1: unknown.
std::int64_t memory_available();

/// Resident bytes of one process, memory that others share included. 0 if it is gone.
std::int64_t resident(int process);

/// Resident bytes of all that is below this process. Memory that several share is counted once if the sum with it counted in
/// each would be above `limit`.
std::int64_t resident_below(std::int64_t limit);

/// Bytes that the files of a folder take up, of at most a thousand.
std::int64_t bytes_in(const char* folder);

} // namespace kdacheck::plugin
