#pragma once
// One run at a time writes into a result folder.

#include <filesystem>

namespace kdacheck {

/// Holds a folder until it is destroyed or the process ends, however it ends; leaves no file behind. On a file system that
/// knows no locks it holds nothing.
class FolderLock {
public:
  /// Throws FileTrouble with one sentence if another run holds the folder.
  explicit FolderLock(const std::filesystem::path& folder);
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  ~FolderLock();

private:
  int descriptor_ = -1;
};

} // namespace kdacheck
