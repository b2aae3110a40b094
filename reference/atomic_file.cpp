#include "atomic_file.hpp"

#include "file_calls.hpp"

#include <atomic>
#include <cerrno>
#include <fcntl.h>
#include <string>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace kdacheck {

FileTrouble cannot_write(const std::filesystem::path& path, int error_number) {
  return FileTrouble("cannot write " + path.string() + ": " + std::system_category().message(error_number));
}

FileCalls& file_calls() {
  thread_local FileCalls calls;
  return calls;
}

AtomicFile::AtomicFile(std::filesystem::path goal) : goal_(std::move(goal)) {
  static std::atomic<unsigned> serial = 0;
  // A link stays one, and so does what is no file: renamed over, /dev/stdout would be a file for every program from then on.
  std::error_code ignored;
  const auto type = std::filesystem::status(goal_, ignored).type();
  using enum std::filesystem::file_type;
  if (type == character || type == fifo || type == socket || type == block) {
    descriptor_ = ::open(goal_.c_str(), O_WRONLY | O_CLOEXEC);
    if (descriptor_ < 0) throw cannot_write(goal_, errno);
    return;
  }
  if (std::filesystem::is_symlink(goal_, ignored)) goal_ = std::filesystem::weakly_canonical(goal_, ignored);
  partial_ = goal_;
  partial_ += ".partial-" + std::to_string(::getpid()) + "-" + std::to_string(serial++);
  descriptor_ = ::open(partial_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor_ < 0) throw cannot_write(goal_, errno);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  if (!partial_.empty()) ::unlink(partial_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw cannot_write(goal_, errno);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void AtomicFile::commit() {
  if (partial_.empty()) {
    ::close(std::exchange(descriptor_, -1));
    return;
  }
  if (file_calls().flush(descriptor_) != 0) throw cannot_write(goal_, errno);
  if (file_calls().rename(partial_.c_str(), goal_.c_str()) != 0) throw cannot_write(goal_, errno);
  ::close(std::exchange(descriptor_, -1));
  const std::filesystem::path folder = goal_.has_parent_path() ? goal_.parent_path() : ".";
  const int folder_descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder_descriptor < 0) return; // the file is whole; only its name may be lost with the power
  file_calls().flush(folder_descriptor);
  ::close(folder_descriptor);
}

void write_atomically(const std::filesystem::path& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(bytes)));
  file.commit();
}

void make_folder(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (!error && !std::filesystem::is_directory(folder, error) && !error) error = std::make_error_code(std::errc::not_a_directory);
  if (error) throw FileTrouble("cannot make the folder " + folder.string() + ": " + error.message());
}

} // namespace kdacheck
