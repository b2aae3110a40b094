#pragma once
// Files and folders that somebody names: what is read must be a file, and what is written must have room.

#include <filesystem>
#include <string>

namespace kdacheck {

/// Throws BadFile (safetensors.hpp) with one sentence for what is not there or no regular file: a folder has no bytes, a pipe or a device
/// may never end.
void demand_file(const std::filesystem::path&);

/// A descriptor to read such a file, closed by the caller. Throws BadFile, also where it cannot be read; never waits.
int open_file(const std::filesystem::path&);

/// All its bytes. Throws as `open_file`.
std::string text_of_file(const std::filesystem::path&);

/// Throws BadFile where no folder is.
void demand_folder(const std::filesystem::path&);

/// Throws BadFile where no folder can be made because a file stands there, or above it.
void demand_room_for_folder(const std::filesystem::path&);

/// Throws BadFile where no file can be written because a folder stands there, or a file above it.
void demand_room_for_file(const std::filesystem::path&);

} // namespace kdacheck
