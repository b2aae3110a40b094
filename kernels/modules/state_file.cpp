#include "state_file.hpp"

#include "../../reference/safetensors.hpp"
#include "../../reference/sha256.hpp"

#include <charconv>
#include <fmt/core.h>

namespace kdacheck::modules {
namespace {

constexpr const char* schema = "kdacheck.state/1";

std::vector<std::int64_t> extents(const StateShape& shape) { return {shape.B, shape.H, shape.K, shape.V}; }

std::string checksum(const StateShape& shape, std::int64_t step, std::span<const std::byte> numbers) {
  const std::string text = fmt::format("{} {} {} {} {} {} {}", schema, shape.B, shape.H, shape.K, shape.V, step, sha256_of(numbers));
  return sha256_of(std::as_bytes(std::span(text)));
}

std::string entry(const Metadata& metadata, const char* key) {
  const auto found = metadata.find(key);
  return found == metadata.end() ? std::string() : found->second;
}

} // namespace

void write_states(const std::filesystem::path& path, const StateShape& shape, std::int64_t step, std::span<const float> states) {
  const auto numbers = std::as_bytes(states);
  const StoredTensor tensor{.name = "state", .type = ElementType::F32, .shape = extents(shape), .bytes = numbers};
  write_safetensors(path, {&tensor, 1}, {{"schema", schema}, {"step", std::to_string(step)}, {"sha256", checksum(shape, step, numbers)}});
}

StoredStates read_states(const std::filesystem::path& path, const StateShape& shape) {
  const SafetensorsFile file(path);
  const TensorTable& table = file.table();
  if (entry(table.metadata, "schema") != schema) throw BadFile(path.string() + ": not a file of states (" + schema + ")");
  const StoredTensor* tensor = table.find("state");
  if (!tensor || tensor->type != ElementType::F32) throw BadFile(path.string() + ": has no tensor state of F32");
  if (tensor->shape != extents(shape))
    throw BadFile(fmt::format("{}: its states do not have the shape [{},{},{},{}]", path.string(), shape.B, shape.H, shape.K, shape.V));
  StoredStates result;
  const std::string step = entry(table.metadata, "step");
  const auto parsed = std::from_chars(step.data(), step.data() + step.size(), result.step);
  if (parsed.ec != std::errc() || parsed.ptr != step.data() + step.size() || result.step < 0)
    throw BadFile(path.string() + ": its step is not a number");
  if (entry(table.metadata, "sha256") != checksum(shape, result.step, tensor->bytes))
    throw BadFile(path.string() + ": the checksum does not fit, the file is damaged");
  result.states = floats(*tensor);
  return result;
}

} // namespace kdacheck::modules
