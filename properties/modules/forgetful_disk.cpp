#include "forgetful_disk.hpp"

#include <cerrno>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <stdlib.h>
#include <system_error>
#include <utility>

namespace kdacheck {
namespace {

std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_folder(const std::filesystem::path& folder, const std::map<std::string, std::string>& files) {
  for (const auto& [name, bytes] : files) std::ofstream(folder / name, std::ios::binary) << bytes;
}

} // namespace

ForgetfulDisk::ForgetfulDisk(std::filesystem::path folder, std::function<void(const std::filesystem::path&)> after_a_cut)
    : folder_(std::move(folder)), after_a_cut_(std::move(after_a_cut)) {
  file_calls().flush = [this](int descriptor) { return flush(descriptor); };
  file_calls().rename = [this](const char* from, const char* to) { return rename(from, to); };
}

int ForgetfulDisk::flush(int descriptor) {
  ++calls_;
  cut();
  std::error_code ignored;
  const auto path = std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(descriptor), ignored);
  if (std::filesystem::is_directory(path, ignored))
    for (auto& [name, bytes] : std::exchange(pending_, {})) lasting_[name] = std::move(bytes);
  else
    flushed_[path.string()] = contents(path);
  cut();
  return kept_.before.flush(descriptor);
}

int ForgetfulDisk::rename(const char* from, const char* to) {
  ++calls_;
  cut();
  std::error_code ignored;
  const std::string path = std::filesystem::canonical(from, ignored).string(); // as /proc has it
  const int answer = kept_.before.rename(from, to);
  const int error = errno;
  if (answer == 0) {
    const auto found = flushed_.find(path);
    pending_[std::filesystem::path(to).filename().string()] = found == flushed_.end() ? std::string() : found->second;
  }
  cut();
  errno = error;
  return answer;
}

void ForgetfulDisk::cut() const {
  for (const bool renamed : {false, true}) {
    std::map<std::string, std::string> left;
    for (const auto& [name, bytes] : lasting_)
      if (std::filesystem::exists(folder_ / name)) left[name] = bytes;
    if (renamed)
      for (const auto& [name, bytes] : pending_) left[name] = bytes;
    std::string folder = (std::filesystem::temp_directory_path() / "kdacheck-cut-XXXXXX").string();
    if (!::mkdtemp(folder.data())) throw std::runtime_error("no folder can be made in " + folder);
    write_folder(folder, left);
    after_a_cut_(folder);
    std::filesystem::remove_all(folder);
  }
}

} // namespace kdacheck
