#include "module.hpp"

#include <algorithm>
#include <stdexcept>

namespace kdacheck::modules {
namespace {

auto& find(auto& tensors, std::string_view name) {
  const auto found = std::ranges::find(tensors, name, &NamedTensor::name);
  if (found == tensors.end()) throw std::out_of_range("there is no tensor " + std::string(name));
  return *found;
}

} // namespace

std::int64_t element_count(std::span<const std::int64_t> shape) {
  std::int64_t count = 1;
  for (std::int64_t extent : shape) count *= extent;
  return count;
}

NamedTensor zeros(std::string name, std::vector<std::int64_t> shape) {
  const auto count = static_cast<std::size_t>(element_count(shape));
  return {std::move(name), std::move(shape), std::vector<float>(count, 0.0f)};
}

const NamedTensor& tensor_named(const NamedTensors& tensors, std::string_view name) { return find(tensors, name); }
NamedTensor& tensor_named(NamedTensors& tensors, std::string_view name) { return find(tensors, name); }

} // namespace kdacheck::modules
