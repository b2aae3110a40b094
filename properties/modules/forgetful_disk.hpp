#pragma once
// A disk that loses at a power cut whatever was not flushed to it.

#include "../../reference/file_calls.hpp"

#include <filesystem>
#include <functional>
#include <map>
#include <string>

namespace kdacheck {

/// Watches one folder through the calls that AtomicFile makes on this thread, as long as it lives. At each of them, and when asked,
/// `after_a_cut` is shown a folder as a power cut may leave it: a file renamed but not flushed is empty; a new name whose folder was
/// not flushed is there or not, both in turn; a file removed is gone.
class ForgetfulDisk {
public:
  ForgetfulDisk(std::filesystem::path folder, std::function<void(const std::filesystem::path& left)> after_a_cut);

  void cut() const;
  int calls() const { return calls_; } ///< flushes and renames seen

private:
  int flush(int descriptor);
  int rename(const char* from, const char* to);

  FileCallsKept kept_;
  std::filesystem::path folder_;
  std::function<void(const std::filesystem::path&)> after_a_cut_;
  std::map<std::string, std::string> flushed_; ///< numbers on the disk, by path
  std::map<std::string, std::string> lasting_; ///< what the names on the disk hold
  std::map<std::string, std::string> pending_; ///< renamed, the folder not flushed since
  int calls_ = 0;
};

} // namespace kdacheck
