#pragma once
// Memory for one kernel call that notices whoever leaves it: canaries on both sides, and behind the far canary pages that
// nobody may touch. A touch there is noted and then allowed, so that a wrong kernel is reported instead of ending the run.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace kdacheck {

/// A block of `bytes` bytes, 64-byte aligned, followed by at least 64 bytes of canary and then by forbidden pages.
/// Blocks come from a pool of the calling thread, to which they return; construct and destroy one on the same thread.
class GuardedBuffer {
public:
  /// `canary`: 32-bit pattern around the block. Throws std::bad_alloc if the system has no more memory.
  GuardedBuffer(std::size_t bytes, std::uint32_t canary);
  ~GuardedBuffer();
  GuardedBuffer(GuardedBuffer&&) noexcept;
  GuardedBuffer& operator=(GuardedBuffer&&) = delete;

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

  /// Repeats a 32-bit pattern over the block.
  void fill(std::uint32_t pattern) const;

  /// What happened outside the block since it was made, in sentences such as "wrote 3 bytes past the end of o".
  std::vector<std::string> trespasses(const std::string& label) const;

  /// A mapping with its forbidden pages; lives in the pool.
  struct Region;

private:
  Region* region_;
  std::byte* data_;
  std::size_t bytes_;
  std::uint32_t canary_;
};

} // namespace kdacheck
