#include "golden_case.hpp"

#include "../reference/sha256.hpp"

#include <nlohmann/json.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace kdacheck {
namespace {

using nlohmann::json;

constexpr int schema_version = 2;

std::string why_of(const Recipe& recipe) {
  const Regime* regime = regime_named(recipe.regime);
  return regime ? regime->why : "";
}

const json& layout() {
  static const json text{{"q k", "[B,T,H,K]"},
                         {"v o", "[B,T,HV,V]"},
                         {"g a b", "[B,T,HV,K]"},
                         {"beta", "[B,T,HV]"},
                         {"initial_state final_state", "[N,HV,K,V]"},
                         {"states", "[T,HV,K,V]: after every token"},
                         {"chunk.i.*", "one chunk of one value head: G W [C,K], Akk Aqk T [C,C], U [C,V], S_start [K,V]"},
                         {"x.high x.low", "fp64 parts of one number x.high + x.low"},
                         {"o.bound.*", "[B,T,HV]: a kernel of that contract (bounds) is off by no more in any channel of o"},
                         {"final_state.bound.*", "[N,HV,K]: the same for the rows of final_state"},
                         {"dq.bound.* dk.bound.*", "[B,T,H]: the same for gradients, formed from the last token to the first"},
                         {"dv.bound.* dg.bound.* da.bound.*", "[B,T,HV]: so do db and dbeta"},
                         {"dinitial_state.bound.*", "[N,HV,K]: its rows; [HV] and [HV,K] for dA_log and ddt_bias"},
                         {"order", "row-major, value head j reads q/k head j / (HV/H)"}};
  return text;
}

/// What a key must hold.
enum class Kind { text, number, whole, flag, object, list };

bool is_kind(const json& value, Kind kind) {
  switch (kind) {
  case Kind::text: return value.is_string();
  case Kind::number: return value.is_number();
  case Kind::whole: return value.is_number_integer();
  case Kind::flag: return value.is_boolean();
  case Kind::object: return value.is_object();
  default: return value.is_array();
  }
}

std::string_view name(Kind kind) {
  constexpr std::array<std::string_view, 6> names{"a string", "a number", "an integer", "true or false", "an object", "a list"};
  return names[static_cast<std::size_t>(kind)];
}

struct Key {
  const char* name;
  Kind kind;
};

/// As `git describe --always --dirty --abbrev=12` names it; empty where the program's sources lie in no repository.
bool is_commit(std::string_view text) {
  if (text.ends_with("-dirty")) text.remove_suffix(6);
  return text.empty() || (text.size() >= 12 && text.size() <= 64 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos);
}

constexpr std::string_view program_name = "kdacheck golden generate";

std::optional<std::string> breach_in(const json& object, const std::string& where, std::initializer_list<Key> keys) {
  for (const Key& key : keys) {
    const auto found = object.find(key.name);
    if (found == object.end()) return where + " lacks '" + key.name + "'";
    if (!is_kind(*found, key.kind)) return where + ": '" + key.name + "' is not " + std::string(name(key.kind));
  }
  for (const auto& [label, value] : object.items())
    if (std::none_of(keys.begin(), keys.end(), [&name = label](const Key& key) { return name == key.name; }))
      return where + " has an unknown key '" + label + "'";
  return std::nullopt;
}

} // namespace

json manifest_of(const GoldenCase& golden, const std::string& commit) {
  json tensors = json::array(), bounds = json::array();
  for (const GoldenBound& bound : golden.bounds)
    if (!bound.tensors.empty()) bounds.push_back({{"name", bound.name}, {"contract", bound.contract}});
  for (const GoldenTensor& tensor : golden.tensors)
    tensors.push_back({{"name", tensor.tensor.name},
                       {"dtype", std::string(name(tensor.tensor.type))},
                       {"shape", tensor.tensor.shape},
                       {"sha256", sha256_of(tensor.tensor.bytes)},
                       {"radius", tensor.radius}});
  const InputFormats& formats = golden.contents.formats;
  return {{"schema_version", schema_version},
          {"case", golden.name},
          {"regime", golden.recipe.regime},
          {"why", golden.why.empty() ? why_of(golden.recipe) : golden.why},
          {"token", to_token(golden.recipe)},
          {"options", golden.metadata},
          {"formats",
           {{"qkv", std::string(name(formats.qkv))}, {"gate", std::string(name(formats.gate))}, {"beta", std::string(name(formats.beta))}}},
          {"contents",
           {{"gradients", golden.contents.gradients},
            {"intermediates_chunk", golden.contents.intermediates_chunk},
            {"states", golden.contents.states}}},
          {"oracle",
           {{"arithmetic", golden.arithmetic},
            {"bits", golden.bits},
            {"radius", "largest over a tensor; -1: computed with 50 digits, not certified"}}},
          {"bounds", bounds},
          {"layout", layout()},
          {"file", "tensors.safetensors"},
          {"tensors", tensors},
          {"generator", {{"program", std::string(program_name)}, {"commit", commit}}}};
}

std::string manifest_text(const json& manifest) {
  json frame = manifest;
  frame["tensors"] = json::array();
  std::string text = frame.dump(1) + "\n", tensors;
  for (const json& tensor : manifest["tensors"]) tensors += (tensors.empty() ? "\n  " : ",\n  ") + tensor.dump();
  const std::string_view empty = "\n \"tensors\": []"; // a line of its own: strings hold no line ends
  return text.replace(text.find(empty) + empty.size() - 1, 0, tensors + "\n ");
}

std::optional<std::string> manifest_breach(const json& manifest) {
  if (!manifest.is_object()) return "the manifest is no JSON object";
  const auto version = manifest.find("schema_version");
  if (version == manifest.end() || *version != json(schema_version))
    return "the manifest is of schema version " + (version == manifest.end() ? std::string("none") : version->dump()) + ", not " +
           std::to_string(schema_version);
  if (auto breach = breach_in(manifest, "the manifest",
                              {{"schema_version", Kind::whole},
                               {"case", Kind::text},
                               {"regime", Kind::text},
                               {"why", Kind::text},
                               {"token", Kind::text},
                               {"options", Kind::object},
                               {"formats", Kind::object},
                               {"contents", Kind::object},
                               {"oracle", Kind::object},
                               {"bounds", Kind::list},
                               {"layout", Kind::object},
                               {"file", Kind::text},
                               {"tensors", Kind::list},
                               {"generator", Kind::object}}))
    return breach;
  if (auto breach = breach_in(manifest["formats"], "formats", {{"qkv", Kind::text}, {"gate", Kind::text}, {"beta", Kind::text}}))
    return breach;
  for (const auto& [key, value] : manifest["formats"].items())
    if (!format_named(value.get<std::string>())) return "formats: '" + key + "' names no format: " + value.dump();
  if (auto breach = breach_in(manifest["contents"], "contents",
                              {{"gradients", Kind::flag}, {"intermediates_chunk", Kind::whole}, {"states", Kind::flag}}))
    return breach;
  if (auto breach = breach_in(manifest["oracle"], "oracle", {{"arithmetic", Kind::text}, {"bits", Kind::whole}, {"radius", Kind::text}}))
    return breach;
  if (auto breach = breach_in(manifest["generator"], "generator", {{"program", Kind::text}, {"commit", Kind::text}})) return breach;
  if (manifest["generator"]["program"] != program_name) return "generator: 'program' is not '" + std::string(program_name) + "'";
  if (!is_commit(manifest["generator"]["commit"].get<std::string>())) return "generator: 'commit' is no commit's hash";
  for (const json& bound : manifest["bounds"]) {
    if (!bound.is_object()) return "bounds: an entry is no object";
    if (auto breach = breach_in(bound, "a bound", {{"name", Kind::text}, {"contract", Kind::text}})) return breach;
  }
  for (const json& tensor : manifest["tensors"]) {
    if (!tensor.is_object()) return "tensors: an entry is no object";
    if (auto breach = breach_in(
            tensor, "a tensor",
            {{"name", Kind::text}, {"dtype", Kind::text}, {"shape", Kind::list}, {"sha256", Kind::text}, {"radius", Kind::number}}))
      return breach;
    if (!element_type_named(tensor["dtype"].get<std::string>()))
      return "tensor " + tensor["name"].dump() + " has the unknown dtype " + tensor["dtype"].dump();
    if (!std::all_of(tensor["shape"].begin(), tensor["shape"].end(), [](const json& size) { return size.is_number_integer(); }))
      return "tensor " + tensor["name"].dump() + " has a shape that is none";
    if (tensor["sha256"].get<std::string>().size() != 64) return "tensor " + tensor["name"].dump() + " has a sha256 that is none";
  }
  return std::nullopt;
}

GoldenCase blueprint_of(const json& manifest, const std::string& source) {
  if (auto breach = manifest_breach(manifest)) throw BadFile(source + ": " + *breach);
  GoldenCase golden;
  golden.name = manifest["case"].get<std::string>();
  golden.why = manifest["why"].get<std::string>();
  try {
    golden.recipe = from_token(manifest["token"].get<std::string>());
  } catch (const std::invalid_argument& error) {
    throw BadFile(source + ": " + error.what());
  }
  const json& formats = manifest["formats"];
  const auto format = [&](const char* key) { return *format_named(formats[key].get<std::string>()); };
  golden.contents = {.formats = {.qkv = format("qkv"), .gate = format("gate"), .beta = format("beta")},
                     .gradients = manifest["contents"]["gradients"].get<bool>(),
                     .intermediates_chunk = manifest["contents"]["intermediates_chunk"].get<std::int64_t>(),
                     .states = manifest["contents"]["states"].get<bool>()};
  return golden;
}

} // namespace kdacheck
