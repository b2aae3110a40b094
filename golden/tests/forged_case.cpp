#include "../listed_cases.hpp"
#include "../set_index.hpp"
#include "small_case.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <span>

using namespace kdacheck;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

/// What verify says of a set of one case whose manifest was changed, with an index that was made to fit again.
GoldenOutcome forged(const std::function<void(json&)>& change) {
  const Folder set;
  store_golden(set.path, small_case(), "");
  json manifest = json::parse(text_of(set.path / "small/manifest.json"));
  change(manifest);
  write_text(set.path / "small/manifest.json", manifest_text(manifest));
  write_index(set.path, {{"small", hash_for_index(set.path / "small")}});
  return verify_golden(set.path).at(0);
}

void change_tensor(json& manifest, const std::string& name, const char* key, const json& value) {
  for (json& tensor : manifest["tensors"])
    if (tensor["name"] == name) tensor[key] = value;
}

} // namespace

TEST_CASE("a manifest that was forged together with its index still has to follow from its recipe") {
  using enum GoldenOutcome::Kind;
  CHECK(forged([](json&) {}).kind == same);
  CHECK(forged([](json& m) { m["token"] = to_token(small_recipe(8)); }).kind == changed);
  Recipe giant = small_recipe(); // found out before a state is computed for each of its tokens
  giant.shape.T = 1 << 24;
  const GoldenOutcome outgrown = forged([&](json& m) { m["token"] = to_token(giant); });
  CHECK(outgrown.kind == changed);
  CHECK(outgrown.remarks == std::vector<std::string>{"q: [1,5,1,3] is stored, [1,16777216,1,3] follows from the recipe"});
  const GoldenOutcome narrow = forged([](json& m) { change_tensor(m, "o.high", "radius", 1e-300); });
  CHECK(narrow.kind == changed);
  CHECK(narrow.remarks.at(0).find("o.high: radius 1e-300 is promised") == 0);
  CHECK(forged([](json& m) { change_tensor(m, "o.high", "radius", 1e-9); }).kind == changed); // true still, but not what is certified
  CHECK(forged([](json& m) { change_tensor(m, "q", "radius", 0.5); }).kind == changed);       // inputs are exact
  CHECK(forged([](json& m) { change_tensor(m, "o.high", "radius", -1.0); }).kind == changed);
  CHECK(forged([](json& m) { m["oracle"]["bits"] = 200; }).kind == changed);
  CHECK(forged([](json& m) { m["layout"]["order"] = "column-major"; }).kind == changed);
  CHECK(forged([](json& m) { m["case"] = "another"; }).kind == damaged);
  CHECK(forged([](json& m) { change_tensor(m, "q", "dtype", "F32"); }).kind == damaged);
  CHECK(forged([](json& m) { change_tensor(m, "q", "shape", {5, 3}); }).kind == damaged);
  CHECK(forged([](json& m) { m["options"]["scale"] = "2"; }).kind == damaged);
  CHECK(forged([](json& m) { m["bounds"][0]["contract"] = "input=fp32"; }).kind == changed);
  CHECK(forged([](json& m) { m["file"] = "../other/tensors.safetensors"; }).kind == damaged);
}

TEST_CASE("stored bounds hold what a kernel of their contract may be off by, and not much more") {
  for (const Rule rule : {Rule::kda, Rule::dplr}) {
    Recipe recipe = small_recipe();
    recipe.options.rule = rule;
    const GoldenCase golden = golden_case("small", recipe, {.formats = {.qkv = Format::bf16, .gate = Format::fp32, .beta = Format::fp32}});
    REQUIRE(golden.bounds.size() == 2);
    CHECK(golden.bounds[0].contract.find("operands=fp32") != std::string::npos);
    CHECK(golden.bounds[1].contract.find("operands=bf16") != std::string::npos);
    const auto o = numbers(tensor_named(golden, "o.high")), radius = std::vector<double>{tensor_named(golden, "o.high").radius};
    const auto fp32 = numbers(tensor_named(golden, "o.bound.fp32")), bf16 = numbers(tensor_named(golden, "o.bound.bf16"));
    REQUIRE(fp32.size() == 10);
    CHECK(numbers(tensor_named(golden, "final_state.bound.fp32")).size() == 6);
    for (std::size_t group = 0; group < fp32.size(); ++group) {
      double size = 0;
      for (std::size_t j = 0; j < 4; ++j) size = std::max(size, std::fabs(o[group * 4 + j]));
      CHECK(fp32[group] >= radius[0] + 0x1p-24 * size);
      CHECK(fp32[group] < 1e-3);
      CHECK(bf16[group] > 0x1p-8 * size);
      CHECK(fp32[group] * 256 < bf16[group] * 2);
      int exponent = 0;
      const double eight_bits = std::frexp(fp32[group], &exponent) * 256;
      CHECK(eight_bits == std::nearbyint(eight_bits));
    }
  }
}

TEST_CASE("a stored bound that is narrower or wider than today's is a change, but for its rounding") {
  using enum GoldenOutcome::Kind;
  for (const double factor : {0.5, 1.0, 1 + 0x1p-8, 1.5, 1e100, HUGE_VAL}) {
    INFO(factor);
    const Folder set;
    GoldenCase golden = small_case();
    for (GoldenTensor& tensor : golden.tensors)
      if (tensor.tensor.name == "o.bound.fp32") {
        auto values = numbers(tensor);
        values.back() *= factor;
        const auto bytes = std::as_bytes(std::span(values));
        tensor.tensor.bytes.assign(bytes.begin(), bytes.end());
      }
    store_golden(set.path, golden, "");
    const bool right = factor == 1 || factor == 1 + 0x1p-8;
    CHECK(verify_golden(set.path).at(0).kind == (right ? same : changed));
    const GoldenOutcome again = store_golden(set.path, small_case(), "");
    CHECK(again.kind == (right ? same : changed));
    if (factor == 1.5) CHECK(again.remarks.at(0) == "o.bound.fp32 is up to 1.5 times as wide as what is proved today");
  }
}

TEST_CASE("why a case is kept follows from its regime or from the found cases, and stands where somebody listed it") {
  using enum GoldenOutcome::Kind;
  const auto forged_why = [](std::string label, const Recipe& recipe, const std::string& why) {
    const Folder set;
    GoldenCase golden = golden_case(std::move(label), recipe, {});
    golden.why = why;
    store_golden(set.path, golden, "");
    return verify_golden(set.path).at(0).kind;
  };
  const std::string due = regime_named("gaussian-keys")->why;
  CHECK(forged_why("gaussian-keys.fp32.7", small_recipe(), due) == same);
  CHECK(forged_why("gaussian-keys.fp32.7", small_recipe(), "another reason") == changed);
  CHECK(forged_why("mine", small_recipe(), "a reason of mine") == same);
  const ListedCase found = listed_found_cases().front();
  CHECK(forged_why(found.name, found.recipe, found.why) == same);
  CHECK(forged_why(found.name, found.recipe, "another reason") == changed);
  CHECK_THROWS_WITH(parse_listed_cases("# why\ngaussian-keys.fp32.7 fp32 " + to_token(small_recipe()), "list"),
                    "list, line 2: 'gaussian-keys.fp32.7' is what a case is called that its regime draws");
  const Folder set; // generated anew, its own reason counts
  GoldenCase golden = small_case();
  golden.why = "one reason";
  store_golden(set.path, golden, "");
  CHECK(store_golden(set.path, golden, "").kind == same);
  golden.why = "another";
  CHECK(store_golden(set.path, golden, "").kind == changed);
}
