#pragma once
// Files of named tensors, as Python's `safetensors` package reads and writes them: 8 bytes with the header's length,
// a JSON header, then the tensors' bytes, little-endian, without gaps.

#include "number_format.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace kdacheck {

/// A file that is not what it should be, in one sentence that names it. Programs exit with status 2.
struct BadFile : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Element types that are read and written.
enum class ElementType : std::uint8_t { F64, F32, F16, BF16, I64, I32, U8, BOOL };
std::string_view name(ElementType);
std::optional<ElementType> element_type_named(std::string_view);
std::size_t element_bytes(ElementType);

/// The element type that stores a number format; tf32 is stored as F32.
ElementType element_type_of(Format);

/// The number format of a floating-point element type, or nothing.
std::optional<Format> format_of(ElementType);

using Metadata = std::map<std::string, std::string>;

/// One tensor inside a file. `bytes` stays valid as long as the file.
struct StoredTensor {
  std::string name;
  ElementType type = ElementType::F32;
  std::vector<std::int64_t> shape; ///< outermost first; empty: one number
  std::span<const std::byte> bytes;
};

/// What a file holds: tensors in the order of their bytes. No check is made of the numbers: NaN may be there.
struct TensorTable {
  Metadata metadata;
  std::vector<StoredTensor> tensors;
  const StoredTensor* find(std::string_view name) const;
};

/// Reads a whole file's bytes, which must outlive the table. `source` names them in errors. Throws BadFile for
/// anything malformed, truncated or of unknown type, whatever the bytes are.
TensorTable parse_safetensors(std::span<const std::byte> bytes, std::string_view source);

/// A file mapped into memory.
class SafetensorsFile {
public:
  /// Throws BadFile, also if the file cannot be read.
  explicit SafetensorsFile(const std::filesystem::path&);
  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;
  ~SafetensorsFile();

  const TensorTable& table() const { return table_; }

private:
  std::span<const std::byte> mapped_;
  TensorTable table_;
};

/// Numbers of a floating-point tensor; F64 is exact only as double. Throws std::invalid_argument for other types.
std::vector<float> floats(const StoredTensor&);
std::vector<double> doubles(const StoredTensor&);
/// Numbers of an I64, I32, U8 or BOOL tensor. Throws std::invalid_argument for other types.
std::vector<std::int64_t> integers(const StoredTensor&);

/// The numbers as bytes of a floating-point element type, each rounded once to nearest.
std::vector<std::byte> encoded(std::span<const float>, ElementType);

/// Writes a file, whole or not at all: header padded to 8 bytes, larger elements first so that each tensor is aligned.
/// The same arguments give the same bytes. Throws FileTrouble (reference/atomic_file.hpp), and std::invalid_argument for
/// a name given twice or a shape that does not fit its bytes.
void write_safetensors(const std::filesystem::path&, std::span<const StoredTensor>, const Metadata& = {});

} // namespace kdacheck
