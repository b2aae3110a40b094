#include "../golden_set.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdlib>
#include <fstream>

using namespace kdacheck;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

struct Folder {
  fs::path path;
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "kdacheck-golden-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path = pattern;
  }
  ~Folder() { fs::remove_all(path); }
};

Recipe small_recipe(std::uint64_t seed = 7) {
  Recipe recipe;
  recipe.regime = "gaussian-keys";
  recipe.shape = {.B = 1, .T = 5, .H = 1, .HV = 2, .K = 3, .V = 4};
  recipe.options.scale = 0.5f;
  recipe.gates = GatePattern::jitter;
  recipe.decay = 0.5f;
  recipe.loss = LossPattern::everywhere;
  recipe.state = StatePattern::gaussian;
  recipe.seed = seed;
  return recipe;
}

const GoldenContents everything{.formats = {.qkv = Format::bf16, .gate = Format::fp32, .beta = Format::fp32},
                                .gradients = true,
                                .intermediates_chunk = 2,
                                .states = true};

GoldenCase small_case(std::uint64_t seed = 7) { return golden_case("small", small_recipe(seed), everything); }

const GoldenTensor& tensor_named(const GoldenCase& golden, const std::string& name) {
  for (const GoldenTensor& tensor : golden.tensors)
    if (tensor.tensor.name == name) return tensor;
  throw std::logic_error("no tensor " + name);
}

std::vector<double> numbers(const GoldenTensor& tensor) {
  return doubles({tensor.tensor.name, tensor.tensor.type, tensor.tensor.shape, tensor.tensor.bytes});
}

std::string text_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_text(const fs::path& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

} // namespace

TEST_CASE("a golden case holds inputs in their own type, outputs and gradients in two parts, and what was asked for besides") {
  const GoldenCase golden = small_case();
  CHECK(tensor_named(golden, "q").tensor.type == ElementType::BF16);
  CHECK(tensor_named(golden, "g").tensor.type == ElementType::F32);
  for (const char* name : {"o.high", "o.low", "final_state.high", "dq.low", "dg.high", "dbeta.high", "dinitial_state.high",
                           "chunk.0.T.high", "chunk.5.S_start.high", "states.high"})
    CHECK(tensor_named(golden, name).tensor.type == ElementType::F64);
  CHECK(tensor_named(golden, "o.high").radius > 0);
  CHECK(tensor_named(golden, "o.high").radius < 1e-18);
  CHECK(tensor_named(golden, "q").radius == 0);
  CHECK(tensor_named(golden, "chunk.0.T.high").radius == -1);
}

TEST_CASE("the states after every token end in the final state, and chunks start where the state was") {
  const GoldenCase golden = small_case();
  const auto states = numbers(tensor_named(golden, "states.high")), final_state = numbers(tensor_named(golden, "final_state.high"));
  REQUIRE(states.size() == 5 * final_state.size());
  for (std::size_t i = 0; i < final_state.size(); ++i) CHECK(states[4 * final_state.size() + i] == Approx(final_state[i]).epsilon(1e-15));
  const auto start = numbers(tensor_named(golden, "chunk.1.S_start.high")); // head 0, after two tokens
  for (std::size_t i = 0; i < start.size(); ++i) CHECK(start[i] == Approx(states[final_state.size() + i]).epsilon(1e-15));
}

TEST_CASE("every manifest keeps the schema, and each breach of it is named") {
  const json manifest = manifest_of(small_case(), "abc");
  CHECK(manifest_breach(manifest) == std::nullopt);
  const auto broken = [&](const auto& change) {
    json copy = manifest;
    change(copy);
    return manifest_breach(copy).value_or("");
  };
  CHECK(broken([](json& m) { m.erase("token"); }) == "the manifest lacks 'token'");
  CHECK(broken([](json& m) { m["schema_version"] = 2; }) == "the manifest is of schema version 2, not 1");
  CHECK(broken([](json& m) { m["colour"] = "blue"; }) == "the manifest has an unknown key 'colour'");
  CHECK(broken([](json& m) { m["tensors"][0]["sha256"] = "00"; }).find("sha256") != std::string::npos);
  CHECK(broken([](json& m) { m["tensors"][0]["dtype"] = "F8"; }).find("F8") != std::string::npos);
  CHECK(broken([](json& m) { m["formats"]["qkv"] = "fp8"; }).find("fp8") != std::string::npos);
  CHECK(broken([](json& m) { m["contents"]["states"] = 1; }) == "contents: 'states' is not true or false");
  CHECK(manifest_breach(json::array()) == "the manifest is no JSON object");
}

TEST_CASE("the schema file names the keys that the program demands") {
  std::ifstream file(fs::path(KDACHECK_GOLDEN) / "manifest.schema.json");
  const json schema = json::parse(file);
  json keys = json::array();
  for (const auto& [key, value] : manifest_of(small_case(), "").items()) keys.push_back(key);
  json required = schema["required"];
  std::sort(required.begin(), required.end());
  CHECK(required == keys);
  const json tensor = manifest_of(small_case(), "")["tensors"][0];
  for (const auto& [key, value] : tensor.items()) CHECK(schema["properties"]["tensors"]["items"]["properties"].contains(key));
}

TEST_CASE("generating again writes nothing, verifying finds nothing") {
  const Folder set;
  CHECK(store_golden(set.path, small_case(), "first").kind == GoldenOutcome::Kind::written);
  const std::string before = text_of(set.path / "small/tensors.safetensors");
  CHECK(store_golden(set.path, small_case(), "second").kind == GoldenOutcome::Kind::same);
  CHECK(text_of(set.path / "small/tensors.safetensors") == before);
  const auto outcomes = verify_golden(set.path);
  REQUIRE(outcomes.size() == 1);
  CHECK(outcomes[0].kind == GoldenOutcome::Kind::same);
}

TEST_CASE("a changed case is written beside the old one and taken only when accepted") {
  const Folder set;
  store_golden(set.path, small_case(), "");
  const std::string before = text_of(set.path / "small/tensors.safetensors");
  const GoldenOutcome changed = store_golden(set.path, small_case(8), "");
  CHECK(changed.kind == GoldenOutcome::Kind::changed);
  CHECK_FALSE(changed.remarks.empty());
  CHECK(text_of(set.path / "small/tensors.safetensors") == before);
  REQUIRE(fs::exists(set.path / "small.new/manifest.json"));
  const auto difference = diff_golden(set.path / "small", set.path / "small.new");
  CHECK(difference.at(0).kind == GoldenOutcome::Kind::changed);
  accept_golden(set.path, "small");
  CHECK_FALSE(fs::exists(set.path / "small.new"));
  CHECK(text_of(set.path / "small/tensors.safetensors") != before);
  CHECK(verify_golden(set.path).at(0).kind == GoldenOutcome::Kind::same);
  CHECK_THROWS_AS(accept_golden(set.path, "small"), BadFile);
}

TEST_CASE("one flipped bit, a truncated file, a tampered manifest and a foreign schema are seen") {
  const Folder set;
  store_golden(set.path, small_case(), "");
  const fs::path tensors = set.path / "small/tensors.safetensors", manifest = set.path / "small/manifest.json";
  const std::string good = text_of(tensors), good_manifest = text_of(manifest);
  const auto kind = [&] { return verify_golden(set.path).at(0).kind; };

  std::string flipped = good;
  flipped.back() = static_cast<char>(flipped.back() ^ 1);
  write_text(tensors, flipped);
  CHECK(kind() == GoldenOutcome::Kind::damaged);
  write_text(tensors, good.substr(0, good.size() - 3));
  CHECK(kind() == GoldenOutcome::Kind::damaged);
  write_text(tensors, good);
  CHECK(kind() == GoldenOutcome::Kind::same);

  json other = json::parse(good_manifest);
  other["token"] = to_token(small_recipe(8));
  write_text(manifest, other.dump());
  CHECK(kind() == GoldenOutcome::Kind::changed);
  other["schema_version"] = 9;
  write_text(manifest, other.dump());
  CHECK(kind() == GoldenOutcome::Kind::damaged);
  write_text(manifest, "{");
  CHECK(kind() == GoldenOutcome::Kind::damaged);
}

TEST_CASE("a folder without a case is refused") {
  const Folder set;
  CHECK_THROWS_AS(verify_golden(set.path), BadFile);
  CHECK_THROWS_AS(diff_golden(set.path, set.path), BadFile);
}
