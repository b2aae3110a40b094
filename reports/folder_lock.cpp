#include "folder_lock.hpp"

#include "../reference/atomic_file.hpp"

#include <cerrno>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

namespace kdacheck {

FolderLock::FolderLock(const std::filesystem::path& folder) {
  descriptor_ = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor_ < 0) throw cannot_write(folder, errno);
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
  ::close(descriptor_);
  throw FileTrouble("another run is writing into " + folder.string() + "; wait for it or choose another folder");
}

FolderLock::~FolderLock() { ::close(descriptor_); }

} // namespace kdacheck
