#include "safetensors.hpp"

#include "atomic_file.hpp"
#include "named_file.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <sys/mman.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace kdacheck {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are stored little-endian and read in place");

using Json = nlohmann::ordered_json;
constexpr std::uint64_t longest_header = 100'000'000; // the limit of the format's own implementation
constexpr std::string_view metadata_key = "__metadata__";

/// Bytes of a shape, or nothing if they do not fit 63 bits.
std::optional<std::int64_t> bytes_of(const std::vector<std::int64_t>& shape, ElementType type) {
  auto bytes = static_cast<std::int64_t>(element_bytes(type));
  if (std::ranges::find(shape, 0) != shape.end()) return 0;
  for (std::int64_t extent : shape)
    if (__builtin_mul_overflow(bytes, extent, &bytes)) return std::nullopt;
  return bytes;
}

/// Parses the header; a name given twice and nesting deeper than the format's are errors, which plain parsing lets pass.
Json parse_header(std::string_view text, const std::string& source) {
  std::vector<std::set<std::string>> names;
  const auto check = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > 3) throw BadFile(source + ": the header is nested deeper than the format is");
    if (event == Json::parse_event_t::object_start) names.emplace_back();
    if (event == Json::parse_event_t::object_end) names.pop_back();
    if (event == Json::parse_event_t::key && !names.back().insert(parsed.get<std::string>()).second)
      throw BadFile(source + ": the header names " + parsed.dump(-1, ' ', false, Json::error_handler_t::replace) + " twice");
    return true;
  };
  try {
    return Json::parse(text, check);
  } catch (const Json::exception&) {
    throw BadFile(source + ": the header is not JSON");
  }
}

std::vector<std::int64_t> non_negative_integers(const Json& entry, const char* key, const std::string& label) {
  const auto found = entry.find(key);
  if (found == entry.end() || !found->is_array()) throw BadFile(label + " has no list " + key);
  std::vector<std::int64_t> numbers;
  for (const Json& number : *found) {
    if (!number.is_number_unsigned() || number.get<std::uint64_t>() > std::uint64_t{INT64_MAX})
      throw BadFile(label + ": " + key + " holds something that is not a size");
    numbers.push_back(number.get<std::int64_t>());
  }
  return numbers;
}

/// A name from a file as part of one line.
std::string shown(std::string text) {
  std::ranges::replace_if(
      text, [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  return text;
}

StoredTensor parse_tensor(const std::string& tensor_name, const Json& entry, std::span<const std::byte> data, const std::string& source) {
  const std::string label = source + ": tensor " + shown(tensor_name);
  if (!entry.is_object() || entry.size() != 3) throw BadFile(label + " is not described by dtype, shape and data_offsets");
  const auto dtype = entry.find("dtype");
  if (dtype == entry.end() || !dtype->is_string()) throw BadFile(label + " has no dtype");
  const auto type = element_type_named(dtype->get<std::string>());
  if (!type) throw BadFile(label + " has the dtype " + shown(dtype->get<std::string>()) + "; known are F64 F32 F16 BF16 I64 I32 U8 BOOL");
  StoredTensor tensor{tensor_name, *type, non_negative_integers(entry, "shape", label), {}};
  const auto offsets = non_negative_integers(entry, "data_offsets", label);
  if (offsets.size() != 2 || offsets[0] > offsets[1]) throw BadFile(label + ": data_offsets is not a begin and an end");
  if (static_cast<std::uint64_t>(offsets[1]) > data.size())
    throw BadFile(label + " ends at byte " + std::to_string(offsets[1]) + " of the data, which has " + std::to_string(data.size()));
  const auto bytes = bytes_of(tensor.shape, *type);
  if (!bytes || *bytes != offsets[1] - offsets[0])
    throw BadFile(label + ": shape and dtype need " + (bytes ? std::to_string(*bytes) : "too many") + " bytes, data_offsets give " +
                  std::to_string(offsets[1] - offsets[0]));
  tensor.bytes = data.subspan(static_cast<std::size_t>(offsets[0]), static_cast<std::size_t>(*bytes));
  return tensor;
}

Metadata parse_metadata(const Json& entry, const std::string& source) {
  if (!entry.is_object()) throw BadFile(source + ": __metadata__ is not an object");
  Metadata metadata;
  for (const auto& [key, value] : entry.items()) {
    if (!value.is_string()) throw BadFile(source + ": __metadata__ holds something that is not text");
    metadata[key] = value.get<std::string>();
  }
  return metadata;
}

/// The tensors must tile the data: no gap, no overlap, nothing behind the last.
void check_tiling(std::vector<StoredTensor>& tensors, std::span<const std::byte> data, const std::string& source) {
  std::ranges::stable_sort(tensors, {}, [](const StoredTensor& t) { return std::pair(t.bytes.data(), t.bytes.size()); });
  const std::byte* expected = data.data();
  for (const StoredTensor& tensor : tensors) {
    if (tensor.bytes.data() < expected) throw BadFile(source + ": tensor " + shown(tensor.name) + " overlaps the one before it");
    if (tensor.bytes.data() > expected) throw BadFile(source + ": there is a gap before tensor " + shown(tensor.name));
    expected += tensor.bytes.size();
  }
  if (expected != data.data() + data.size())
    throw BadFile(source + ": " + std::to_string(data.data() + data.size() - expected) + " bytes lie behind the last tensor");
}

} // namespace

const StoredTensor* TensorTable::find(std::string_view wanted) const {
  const auto found = std::ranges::find(tensors, wanted, &StoredTensor::name);
  return found == tensors.end() ? nullptr : &*found;
}

TensorTable parse_safetensors(std::span<const std::byte> bytes, std::string_view source_name) {
  const std::string source(source_name);
  std::uint64_t length = 0;
  if (bytes.size() < sizeof length)
    throw BadFile(source + ": too short for a safetensors file (" + std::to_string(bytes.size()) + " bytes)");
  std::memcpy(&length, bytes.data(), sizeof length);
  if (length > longest_header)
    throw BadFile(source + ": not a safetensors file (its header would have " + std::to_string(length) + " bytes)");
  if (length > bytes.size() - sizeof length)
    throw BadFile(source + ": cut off inside the header, which should have " + std::to_string(length) + " bytes");
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + sizeof length, static_cast<std::size_t>(length));
  const auto data = bytes.subspan(sizeof length + static_cast<std::size_t>(length));
  const Json header = parse_header(text, source);
  if (!header.is_object()) throw BadFile(source + ": the header is not a JSON object");
  TensorTable table;
  for (const auto& [key, entry] : header.items())
    if (key == metadata_key)
      table.metadata = parse_metadata(entry, source);
    else
      table.tensors.push_back(parse_tensor(key, entry, data, source));
  check_tiling(table.tensors, data, source);
  return table;
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) {
  const int descriptor = open_file(path);
  struct stat status {};
  ::fstat(descriptor, &status);
  const auto size = static_cast<std::size_t>(status.st_size);
  void* address = size == 0 ? nullptr : ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
  const int map_error = errno;
  ::close(descriptor);
  if (address == MAP_FAILED) throw BadFile("cannot read " + path.string() + ": " + std::system_category().message(map_error));
  mapped_ = {static_cast<const std::byte*>(address), size};
  try {
    table_ = parse_safetensors(mapped_, path.string());
  } catch (...) {
    if (size > 0) ::munmap(address, size);
    throw;
  }
}

SafetensorsFile::SafetensorsFile(SafetensorsFile&& other) noexcept
    : mapped_(std::exchange(other.mapped_, {})), table_(std::exchange(other.table_, {})) {}

SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&& other) noexcept {
  std::swap(mapped_, other.mapped_);
  std::swap(table_, other.table_);
  return *this;
}

SafetensorsFile::~SafetensorsFile() {
  if (!mapped_.empty()) ::munmap(const_cast<std::byte*>(mapped_.data()), mapped_.size());
}

void write_safetensors(const std::filesystem::path& path, std::span<const StoredTensor> tensors, const Metadata& metadata) {
  std::vector<const StoredTensor*> ordered;
  std::set<std::string_view> names{metadata_key};
  for (const StoredTensor& tensor : tensors) {
    if (!names.insert(tensor.name).second) throw std::invalid_argument("tensor name " + tensor.name + " is given twice or reserved");
    if (bytes_of(tensor.shape, tensor.type) != static_cast<std::int64_t>(tensor.bytes.size()))
      throw std::invalid_argument("tensor " + tensor.name + ": shape and bytes do not fit each other");
    ordered.push_back(&tensor);
  }
  std::ranges::stable_sort(ordered, std::greater{}, [](const StoredTensor* tensor) { return element_bytes(tensor->type); });
  Json header = Json::object();
  if (!metadata.empty()) header[std::string(metadata_key)] = metadata;
  std::size_t offset = 0;
  for (const StoredTensor* tensor : ordered) {
    header[tensor->name] = {
        {"dtype", name(tensor->type)}, {"shape", tensor->shape}, {"data_offsets", {offset, offset + tensor->bytes.size()}}};
    offset += tensor->bytes.size();
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const Json::exception&) {
    throw std::invalid_argument("a tensor name or metadata is not UTF-8");
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const std::uint64_t length = text.size();
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(std::as_bytes(std::span(text)));
  for (const StoredTensor* tensor : ordered) file.write(tensor->bytes);
  file.commit();
}

} // namespace kdacheck
