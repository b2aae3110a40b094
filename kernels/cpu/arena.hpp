#pragma once
// Hands out parts of a workspace. With no memory behind it, it measures: buffers are laid out by one function, once to
// learn the size and once to use it.

#include <cstddef>
#include <cstdint>
#include <span>

namespace kdacheck::cpu {

struct Arena {
  std::byte* base = nullptr;
  std::size_t used = 0;

  static constexpr std::size_t alignment = 64;

  template <class Number> Number* take(std::int64_t count) {
    Number* part = base ? reinterpret_cast<Number*>(base + used) : nullptr;
    used += (static_cast<std::size_t>(count) * sizeof(Number) + alignment - 1) / alignment * alignment;
    return part;
  }
  float* floats(std::int64_t count) { return take<float>(count); }
};

} // namespace kdacheck::cpu
