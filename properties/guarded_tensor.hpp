#pragma once
// A tensor of one kernel call in guarded memory: encoded from fp32 numbers, laid out as asked, decoded again.

#include "../reference/tensor.hpp"
#include "guarded_memory.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace kdacheck {

enum class Layout : std::uint8_t {
  dense,   ///< row-major
  spaced,  ///< gaps after each row of every dimension but the innermost
  v_first, ///< a state [N,HV,K,V] stored as [N,HV,V,K]
};

struct GuardedTensor {
  std::string label;
  std::array<std::int64_t, 4> shape;  ///< as problem.hpp gives it: states K-first
  std::array<std::int64_t, 4> stride; ///< by that shape, in elements
  Format format;
  GuardedBuffer memory;
  TensorView view; ///< what the kernel is handed
};

/// Memory for a tensor, all of it (gaps too) holding the canary pattern. `rank` is the number of true dimensions: the
/// innermost of them is contiguous.
GuardedTensor make_guarded_tensor(std::string label, std::array<std::int64_t, 4> shape, std::size_t rank, Format, Layout,
                                  std::uint32_t canary);

/// Stores dense row-major numbers. Throws std::invalid_argument for a wrong count or a number that the format does not
/// have: a kernel must be handed the very problem that it is judged on.
void write_elements(const GuardedTensor&, std::span<const float> values);

/// Dense row-major numbers; fp64 is rounded to fp32, every other format decodes exactly.
std::vector<float> read_elements(const GuardedTensor&);

/// Fills the memory so that every element is the poison: 32-bit formats hold the word, 16-bit ones its upper half.
void poison(const GuardedTensor&, std::uint32_t word);

/// What an element of poisoned memory reads as.
float poison_value(Format, std::uint32_t word);

/// "changed input k at [0,5,1,7]", if the memory differs from what it was.
std::optional<std::string> change_since(const GuardedTensor&, std::span<const std::byte> before);

} // namespace kdacheck
