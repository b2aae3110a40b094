#include "module_golden.hpp"

#include "../reference/safetensors.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace kdacheck {
namespace {

using namespace modules;

struct Named {
  std::string name;
  std::vector<std::int64_t> shape;
  std::vector<double> values, narrow; ///< computed: in 64 and 53 bits; narrow is empty for what was drawn
};

/// Everything in a case's file, in its order.
std::vector<Named> contents_of(const ModuleCase& c) {
  std::vector<Named> all;
  const auto drawn = [&](const std::string& prefix, const NamedTensors& tensors) {
    for (const NamedTensor& tensor : tensors)
      all.push_back({prefix + tensor.name, tensor.shape, {tensor.values.begin(), tensor.values.end()}, {}});
  };
  drawn("call.", c.call.inputs), drawn("parameter.", c.call.parameters), drawn("state.", c.call.states);
  const bool backward = static_cast<bool>(c.module.backward);
  if (backward) drawn("cotangent.", c.cotangents.outputs), drawn("cotangent_state.", c.cotangents.states);
  const ModuleCotangents* loss = backward ? &c.cotangents : nullptr;
  const ExactTensors wide = c.oracle.evaluate(c.call, loss, {ModuleArithmetic::Kind::long_double, 0, 0});
  const ExactTensors narrow = c.oracle.evaluate(c.call, loss, {ModuleArithmetic::Kind::fp64, 0, 0});
  const auto computed = [&](const std::string& prefix, const NamedTensors& like, auto member) {
    for (std::size_t i = 0; i < (wide.*member).size(); ++i)
      all.push_back({prefix + like[i].name, like[i].shape, (wide.*member)[i], (narrow.*member)[i]});
  };
  const ModuleResult shapes = c.module.forward(c.call);
  computed("output.", shapes.outputs, &ExactTensors::outputs), computed("next_state.", shapes.states, &ExactTensors::states);
  if (!backward) return all;
  computed("gradient.", c.call.inputs, &ExactTensors::inputs), computed("gradient.", c.call.parameters, &ExactTensors::parameters);
  computed("gradient_state.", c.call.states, &ExactTensors::initials);
  return all;
}

template <class Number> std::vector<std::byte> bytes_of(const std::vector<Number>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(Number));
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

std::string text_at(const Metadata& metadata, const std::string& key, const std::filesystem::path& path) {
  const auto found = metadata.find(key);
  if (found == metadata.end()) throw BadFile(path.string() + " has no " + key + " in its metadata: it is no golden file of a module");
  return found->second;
}

Metadata metadata_of(const ModuleSuite& suite, const ModuleCase& c, const std::string& regime, std::uint64_t seed) {
  return {
      {"module", suite.name}, {"summary", c.module.summary}, {"regime", regime}, {"seed", std::to_string(seed)}, {"source", suite.source}};
}

/// A sentence per tensor that differs.
std::vector<std::string> against_today(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  const Metadata& metadata = file.table().metadata;
  const std::string module = text_at(metadata, "module", path), regime = text_at(metadata, "regime", path),
                    digits = text_at(metadata, "seed", path);
  std::uint64_t seed = 0;
  const bool number = std::from_chars(digits.data(), digits.data() + digits.size(), seed).ec == std::errc{};
  const auto suite = std::ranges::find(module_suites(), module, &ModuleSuite::name);
  if (!number || suite == module_suites().end() || std::ranges::find(suite->regimes, regime, &ModuleRegime::name) == suite->regimes.end())
    throw BadFile(path.string() + " is of " + module + ", " + regime + ", seed " + digits + ", which is not drawn here");

  const ModuleCase c = suite->draw(regime, seed);
  if (!c.oracle.evaluate) throw BadFile(path.string() + " is of " + module + ", which has no exact values");
  const std::vector<Named> contents = contents_of(c);
  std::vector<std::string> differences;
  const std::string name = module_golden_name(*suite, regime, seed);
  if (path.filename() != name && path.filename() != name + ".new") differences.push_back("it is not named " + name);
  if (metadata != metadata_of(*suite, c, regime, seed)) differences.push_back("its metadata have changed");
  const StoredTensor* cu = file.table().find("cu_seqlens");
  if (!cu || integers(*cu) != c.call.cu_seqlens) differences.push_back("cu_seqlens differs");
  if (file.table().tensors.size() != contents.size() + 1)
    differences.push_back("it holds " + std::to_string(file.table().tensors.size()) + " tensors, not " +
                          std::to_string(contents.size() + 1));
  for (const Named& tensor : contents) {
    const StoredTensor* stored = file.table().find(tensor.name);
    if (!stored || stored->shape != tensor.shape || stored->type != (tensor.narrow.empty() ? ElementType::F32 : ElementType::F64)) {
      differences.push_back(tensor.name + " is missing or of another shape");
      continue;
    }
    const std::vector<double> values = doubles(*stored);
    double allowed = 0, largest = 0;
    for (std::size_t i = 0; i < tensor.narrow.size(); ++i) allowed = std::fmax(allowed, std::fabs(tensor.narrow[i] - tensor.values[i]));
    bool whole = true;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double difference = values[i] == tensor.values[i] ? 0 : std::fabs(values[i] - tensor.values[i]); // or infinities would differ
      whole = whole && difference <= allowed;
      largest = std::fmax(largest, difference);
    }
    if (!whole) differences.push_back(fmt::format("{} differs by {:.3g}", tensor.name, largest));
  }
  return differences;
}

} // namespace

std::string module_golden_name(const ModuleSuite& suite, std::string_view regime, std::uint64_t seed) {
  return suite.name + "." + std::string(regime) + "." + std::to_string(seed) + ".safetensors";
}

void write_module_golden(const ModuleSuite& suite, std::string_view regime, std::uint64_t seed, const std::filesystem::path& path) {
  const ModuleCase c = suite.draw(regime, seed);
  const std::vector<Named> contents = contents_of(c);
  std::vector<std::vector<std::byte>> bytes{bytes_of(c.call.cu_seqlens)};
  for (const Named& tensor : contents)
    bytes.push_back(tensor.narrow.empty() ? bytes_of(std::vector<float>(tensor.values.begin(), tensor.values.end()))
                                          : bytes_of(tensor.values));
  std::vector<StoredTensor> stored{{"cu_seqlens", ElementType::I64, {static_cast<std::int64_t>(c.call.cu_seqlens.size())}, bytes[0]}};
  for (std::size_t i = 0; i < contents.size(); ++i)
    stored.push_back({contents[i].name, contents[i].narrow.empty() ? ElementType::F32 : ElementType::F64, contents[i].shape, bytes[i + 1]});
  write_safetensors(path, stored, metadata_of(suite, c, std::string(regime), seed));
}

CaseDifference difference_of_module(const std::filesystem::path& path, const SetIndex* index) {
  try {
    if (index)
      if (auto breach = breach_of_index(path, *index)) return {true, {std::move(*breach)}};
    return {false, against_today(path)};
  } catch (const BadFile& error) {
    return {true, {error.what()}};
  } catch (const std::invalid_argument& error) {
    return {true, {error.what()}};
  }
}

} // namespace kdacheck
