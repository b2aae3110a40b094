#pragma once
// What AtomicFile asks of the disk, so that a test can put in its place a disk that forgets what was not flushed.

#include <cstdio>
#include <functional>
#include <unistd.h>

namespace kdacheck {

struct FileCalls {
  std::function<int(int descriptor)> flush = [](int descriptor) { return ::fsync(descriptor); }; ///< of a file, or of a folder's names
  std::function<int(const char* from, const char* to)> rename = [](const char* from, const char* to) { return std::rename(from, to); };
};

/// Those of this thread; the machine's own until they are replaced. Each returns 0, or -1 with errno set.
FileCalls& file_calls();

/// Puts the calls of this thread back as they were.
struct FileCallsKept {
  FileCalls before = file_calls();
  FileCallsKept() = default;
  FileCallsKept(const FileCallsKept&) = delete;
  FileCallsKept& operator=(const FileCallsKept&) = delete;
  ~FileCallsKept() { file_calls() = before; }
};

} // namespace kdacheck
