#pragma once
// Memory that begins with a cache line: a register's load then touches one line, not two.

#include <cstddef>
#include <new>
#include <vector>

namespace kdacheck::modules {

/// An allocator that asks for exactly the bytes of its elements, at a multiple of 64.
template <class T> struct OnCacheLines {
  using value_type = T;
  static constexpr std::align_val_t alignment{64};

  OnCacheLines() = default;
  template <class U> OnCacheLines(const OnCacheLines<U>&) {} // NOLINT: containers convert it so
  T* allocate(std::size_t count) { return static_cast<T*>(::operator new(count * sizeof(T), alignment)); }
  void deallocate(T* memory, std::size_t) { ::operator delete(memory, alignment); }
  bool operator==(const OnCacheLines&) const = default;
};

using AlignedFloats = std::vector<float, OnCacheLines<float>>;

} // namespace kdacheck::modules
