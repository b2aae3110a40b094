#pragma once
// Files that are either whole or not there: written under a temporary name beside the goal, flushed to disk, renamed.

#include <cstddef>
#include <filesystem>
#include <span>
#include <stdexcept>
#include <string_view>

namespace kdacheck {

/// Trouble of the machine, in one sentence: a folder that cannot be written, a full disk. Programs exit with status 3.
struct FileTrouble : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A file that appears under its name only when `commit` returns. Until then, and if it is destroyed before, whatever
/// stood under that name stays untouched and nothing half-written is left. A link leads to what is written; a device or a pipe
/// is written to as the bytes come. Every function throws FileTrouble.
class AtomicFile {
public:
  explicit AtomicFile(std::filesystem::path goal);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  void write(std::span<const std::byte> bytes);
  void commit();

private:
  std::filesystem::path goal_, partial_;
  int descriptor_ = -1;
};

/// Writes a whole file at once.
void write_atomically(const std::filesystem::path&, std::string_view bytes);

/// Makes a folder and its parents; it is no error if they are there.
void make_folder(const std::filesystem::path&);

/// "cannot write PATH: No space left on device", from the value of errno.
FileTrouble cannot_write(const std::filesystem::path&, int error_number);

} // namespace kdacheck
