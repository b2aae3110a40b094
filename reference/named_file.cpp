#include "named_file.hpp"

#include "safetensors.hpp"

#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>

namespace kdacheck {
namespace {

namespace fs = std::filesystem;

BadFile cannot_read(const fs::path& path, int error_number) {
  return BadFile("cannot read " + path.string() + ": " + std::system_category().message(error_number));
}

/// A sentence for what is no regular file, or nothing.
std::string breach_of_kind(const fs::path& path, mode_t mode) {
  if (S_ISREG(mode)) return "";
  return path.string() + (S_ISDIR(mode) ? " is a folder, where a file is due" : " is a pipe or a device, where a file is due");
}

} // namespace

void demand_file(const fs::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) throw cannot_read(path, errno);
  if (const std::string breach = breach_of_kind(path, status.st_mode); !breach.empty()) throw BadFile(breach);
}

int open_file(const fs::path& path) {
  demand_file(path);                                                              // opening a device may already do something
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); // should it have become a pipe by now
  if (descriptor < 0) throw cannot_read(path, errno);
  struct stat status {};
  ::fstat(descriptor, &status);
  if (const std::string breach = breach_of_kind(path, status.st_mode); !breach.empty()) {
    ::close(descriptor);
    throw BadFile(breach);
  }
  return descriptor;
}

std::string text_of_file(const fs::path& path) {
  const int descriptor = open_file(path);
  struct stat status {};
  ::fstat(descriptor, &status);
  std::string text(static_cast<std::size_t>(status.st_size), '\0');
  std::size_t got = 0;
  while (got < text.size()) {
    const ssize_t more = ::read(descriptor, text.data() + got, text.size() - got);
    if (more < 0 && errno == EINTR) continue;
    if (more < 0) {
      const int error_number = errno;
      ::close(descriptor);
      throw cannot_read(path, error_number);
    }
    if (more == 0) break;
    got += static_cast<std::size_t>(more);
  }
  ::close(descriptor);
  text.resize(got);
  return text;
}

void demand_folder(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) throw BadFile("there is no folder " + path.string());
  if (!fs::is_directory(path, error)) throw BadFile(path.string() + " is a file, where a folder is due");
}

void demand_room_for_folder(const fs::path& path) {
  std::error_code error;
  for (fs::path part = fs::absolute(path, error); part.has_relative_path(); part = part.parent_path())
    if (fs::exists(part, error) && !fs::is_directory(part, error))
      throw BadFile(path.string() + " cannot be a folder: " + part.string() + " is a file");
}

void demand_room_for_file(const fs::path& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) throw BadFile(path.string() + " is a folder, where a file is due");
  const fs::path folder = fs::absolute(path, error).parent_path();
  for (fs::path part = folder; part.has_relative_path(); part = part.parent_path())
    if (fs::exists(part, error) && !fs::is_directory(part, error))
      throw BadFile(path.string() + " cannot be a file: " + part.string() + " is one, and no folder");
}

} // namespace kdacheck
