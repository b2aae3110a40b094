#pragma once
// Tensors of a module's case, drawn bit for bit alike on every machine.

#include "../../kernels/modules/module.hpp"
#include "../../kernels/modules/philox_uniform.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace kdacheck {

/// Uniform in (low, high); the stream keeps the tensors of a case apart.
inline modules::NamedTensor drawn_tensor(std::string name, std::vector<std::int64_t> shape, double low, double high, std::uint64_t seed,
                                         std::uint32_t stream) {
  modules::NamedTensor tensor{std::move(name), std::move(shape), {}};
  tensor.values = modules::uniform_numbers(modules::element_count(tensor.shape), (high - low) / 2, seed, stream);
  for (float& x : tensor.values) x += static_cast<float>((low + high) / 2);
  return tensor;
}

/// The same tensors with numbers uniform in +-size.
inline modules::NamedTensors drawn_like(const modules::NamedTensors& like, double size, std::uint64_t seed, std::uint32_t stream) {
  modules::NamedTensors result;
  for (const modules::NamedTensor& tensor : like) result.push_back(drawn_tensor(tensor.name, tensor.shape, -size, size, seed, stream++));
  return result;
}

/// cu_seqlens of those lengths.
inline std::vector<std::int64_t> offsets_of(const std::vector<std::int64_t>& lengths) {
  std::vector<std::int64_t> cu{0};
  for (std::int64_t length : lengths) cu.push_back(cu.back() + length);
  return cu;
}

} // namespace kdacheck
