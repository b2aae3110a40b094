#include "guarded_tensor.hpp"

#include <cmath>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace kdacheck {
namespace {

using Extents = std::array<std::int64_t, 4>;

// Gaps are multiples of 16 bytes in every format, as padded allocations have them, and differ between dimensions so that
// no two strides can be taken for one another.
Extents spaced_strides(const Extents& shape, std::size_t rank) {
  constexpr Extents gap{40, 24, 8, 0};
  Extents stride{1, 1, 1, 1};
  std::int64_t row = 1;
  for (int d = 3; d >= 0; --d) {
    const auto i = static_cast<std::size_t>(d);
    stride[i] = row;
    row = row * shape[i];
    if (d > 0 && i < rank) row += gap[i - 1];
  }
  return stride;
}

Extents strides_of(const Extents& shape, std::size_t rank, Layout layout) {
  if (layout == Layout::spaced) return spaced_strides(shape, rank);
  if (layout == Layout::v_first) return {shape[1] * shape[2] * shape[3], shape[2] * shape[3], 1, shape[2]};
  return contiguous_strides(shape);
}

std::size_t elements_spanned(const Extents& shape, const Extents& stride) {
  std::int64_t last = 0;
  for (std::size_t d = 0; d < 4; ++d) {
    if (shape[d] == 0) return 0;
    last += (shape[d] - 1) * stride[d];
  }
  return static_cast<std::size_t>(last + 1);
}

// visit(dense index, offset in elements, row length) for every row of the innermost dimension.
template <class Visit> void for_each_row(const GuardedTensor& tensor, Visit&& visit) {
  const auto& [shape, stride] = std::pair(tensor.shape, tensor.stride);
  std::int64_t dense = 0;
  for (std::int64_t i = 0; i < shape[0]; ++i)
    for (std::int64_t j = 0; j < shape[1]; ++j)
      for (std::int64_t l = 0; l < shape[2]; ++l, dense += shape[3]) visit(dense, i * stride[0] + j * stride[1] + l * stride[2]);
}

std::uint32_t poison_word(Format format, std::uint32_t word) { return storage_bytes(format) == 2 ? (word >> 16) * 0x10001u : word; }

TensorView dense_or_strided_view(const GuardedTensor& tensor) { return {tensor.memory.data(), tensor.format, tensor.shape, tensor.stride}; }

} // namespace

GuardedTensor make_guarded_tensor(std::string label, Extents shape, std::size_t rank, Format format, Layout layout, std::uint32_t canary) {
  const Extents stride = strides_of(shape, rank, layout);
  GuardedBuffer memory(elements_spanned(shape, stride) * storage_bytes(format), canary);
  memory.fill(canary);
  GuardedTensor tensor{std::move(label), shape, stride, format, std::move(memory), {}};
  tensor.view = dense_or_strided_view(tensor);
  if (layout == Layout::v_first) {
    std::swap(tensor.view.shape[2], tensor.view.shape[3]);
    std::swap(tensor.view.stride[2], tensor.view.stride[3]);
  }
  return tensor;
}

void write_elements(const GuardedTensor& tensor, std::span<const float> values) {
  const TensorView view = dense_or_strided_view(tensor);
  if (values.size() != static_cast<std::size_t>(view.elements()))
    throw std::invalid_argument(tensor.label + " has the wrong number of elements");
  const bool copies = view.format == Format::fp32 && tensor.stride[3] == 1 && !values.empty();
  for_each_row(tensor, [&](std::int64_t dense, std::int64_t offset) {
    const float* row = values.data() + dense;
    if (copies) {
      std::memcpy(tensor.memory.data() + 4 * offset, row, 4 * static_cast<std::size_t>(tensor.shape[3]));
      return;
    }
    for (std::int64_t m = 0; m < tensor.shape[3]; ++m) {
      const std::int64_t at = offset + m * tensor.stride[3];
      store(view, at, row[m]);
      const float stored = load(view, at);
      if (stored != row[m] && !(std::isnan(stored) && std::isnan(row[m])))
        throw std::invalid_argument(tensor.label + " holds numbers that " + std::string(name(view.format)) + " does not have");
    }
  });
}

std::vector<float> read_elements(const GuardedTensor& tensor) {
  const TensorView view = dense_or_strided_view(tensor);
  std::vector<float> values(static_cast<std::size_t>(view.elements()));
  for_each_row(tensor, [&](std::int64_t dense, std::int64_t offset) {
    for (std::int64_t m = 0; m < tensor.shape[3]; ++m)
      values[static_cast<std::size_t>(dense + m)] = load(view, offset + m * tensor.stride[3]);
  });
  return values;
}

void poison(const GuardedTensor& tensor, std::uint32_t word) { tensor.memory.fill(poison_word(tensor.format, word)); }

float poison_value(Format format, std::uint32_t word) {
  std::uint64_t memory = poison_word(format, word) * 0x100000001u;
  return load({&memory, format, {1, 1, 1, 1}, {1, 1, 1, 1}}, 0);
}

std::optional<std::string> change_since(const GuardedTensor& tensor, std::span<const std::byte> before) {
  const std::byte* now = tensor.memory.data();
  if (before.empty() || std::memcmp(now, before.data(), before.size()) == 0) return std::nullopt;
  const std::size_t width = storage_bytes(tensor.format);
  std::optional<std::int64_t> first;
  for_each_row(tensor, [&](std::int64_t dense, std::int64_t offset) {
    for (std::int64_t m = 0; m < tensor.shape[3] && !first; ++m) {
      const std::size_t at = static_cast<std::size_t>(offset + m * tensor.stride[3]) * width;
      if (std::memcmp(now + at, before.data() + at, width) != 0) first = dense + m;
    }
  });
  if (!first) return "wrote into the gaps between the rows of " + tensor.label;
  std::string place;
  for (std::int64_t below = tensor.view.elements(), rest = *first, d = 0; d < 4; ++d) {
    below /= tensor.shape[static_cast<std::size_t>(d)];
    place += (d ? "," : "") + std::to_string(rest / below);
    rest %= below;
  }
  return "changed " + tensor.label + " at [" + place + "]";
}

} // namespace kdacheck
