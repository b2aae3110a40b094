#include "abandoned_calls.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

namespace kdacheck {

int no_more_calls() {
  static const int descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return descriptor;
}

void make_calls(bool made) noexcept {
  const int error_number = errno;
  std::uint64_t count = 1;
  const auto done = made ? read(no_more_calls(), &count, sizeof count) : write(no_more_calls(), &count, sizeof count);
  static_cast<void>(done); // nothing to read: they were made before
  errno = error_number;
}

} // namespace kdacheck
