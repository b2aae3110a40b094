// The numbers inside a stored tensor.

#include "safetensors.hpp"
#include "tensor.hpp"

#include <array>

namespace kdacheck {
namespace {

constexpr std::array<std::string_view, 8> names{"F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL"};

template <class To, class From> std::vector<To> converted(std::span<const std::byte> bytes) {
  std::vector<To> numbers(bytes.size() / sizeof(From));
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    From number;
    std::memcpy(&number, bytes.data() + i * sizeof(From), sizeof(From));
    numbers[i] = static_cast<To>(number);
  }
  return numbers;
}

[[noreturn]] void wrong_type(const StoredTensor& tensor, const char* wanted) {
  throw std::invalid_argument("tensor " + tensor.name + " holds " + std::string(name(tensor.type)) + " where " + wanted + " are due");
}

template <class To> std::vector<To> real_numbers(const StoredTensor& tensor) {
  if (tensor.type == ElementType::F64) return converted<To, double>(tensor.bytes);
  const auto format = format_of(tensor.type);
  if (!format) wrong_type(tensor, "floating-point numbers");
  const TensorView view{.data = const_cast<std::byte*>(tensor.bytes.data()), .format = *format}; // load only reads
  std::vector<To> numbers(tensor.bytes.size() / element_bytes(tensor.type));
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = load(view, static_cast<std::int64_t>(i));
  return numbers;
}

} // namespace

std::string_view name(ElementType type) { return names[static_cast<std::size_t>(type)]; }

std::optional<ElementType> element_type_named(std::string_view text) {
  for (std::size_t i = 0; i < names.size(); ++i)
    if (names[i] == text) return static_cast<ElementType>(i);
  return std::nullopt;
}

std::size_t element_bytes(ElementType type) {
  switch (type) {
  case ElementType::F64:
  case ElementType::I64: return 8;
  case ElementType::F32:
  case ElementType::I32: return 4;
  case ElementType::F16:
  case ElementType::BF16: return 2;
  default: return 1;
  }
}

ElementType element_type_of(Format format) {
  switch (format) {
  case Format::fp64: return ElementType::F64;
  case Format::bf16: return ElementType::BF16;
  case Format::fp16: return ElementType::F16;
  default: return ElementType::F32;
  }
}

std::optional<Format> format_of(ElementType type) {
  switch (type) {
  case ElementType::F64: return Format::fp64;
  case ElementType::F32: return Format::fp32;
  case ElementType::F16: return Format::fp16;
  case ElementType::BF16: return Format::bf16;
  default: return std::nullopt;
  }
}

std::vector<float> floats(const StoredTensor& tensor) { return real_numbers<float>(tensor); }
std::vector<double> doubles(const StoredTensor& tensor) { return real_numbers<double>(tensor); }

std::vector<std::int64_t> integers(const StoredTensor& tensor) {
  switch (tensor.type) {
  case ElementType::I64: return converted<std::int64_t, std::int64_t>(tensor.bytes);
  case ElementType::I32: return converted<std::int64_t, std::int32_t>(tensor.bytes);
  case ElementType::U8:
  case ElementType::BOOL: return converted<std::int64_t, std::uint8_t>(tensor.bytes);
  default: wrong_type(tensor, "integers");
  }
}

std::vector<std::byte> encoded(std::span<const float> numbers, ElementType type) {
  const auto format = format_of(type);
  if (!format) throw std::invalid_argument("numbers cannot be stored as " + std::string(name(type)));
  std::vector<std::byte> bytes(numbers.size() * element_bytes(type));
  const TensorView view{.data = bytes.data(), .format = *format};
  for (std::size_t i = 0; i < numbers.size(); ++i) store(view, static_cast<std::int64_t>(i), numbers[i]);
  return bytes;
}

} // namespace kdacheck
