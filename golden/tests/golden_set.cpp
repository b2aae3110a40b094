#include "../listed_cases.hpp"
#include "../set_index.hpp"
#include "small_case.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <span>

using namespace kdacheck;
using nlohmann::json;
namespace fs = std::filesystem;

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
  const json manifest = manifest_of(small_case(), "0123456789ab");
  CHECK(manifest_breach(manifest) == std::nullopt);
  const auto broken = [&](const auto& change) {
    json copy = manifest;
    change(copy);
    return manifest_breach(copy).value_or("");
  };
  CHECK(broken([](json& m) { m.erase("token"); }) == "the manifest lacks 'token'");
  CHECK(broken([](json& m) { m["schema_version"] = 3; }) == "the manifest is of schema version 3, not 2");
  CHECK(broken([](json& m) { m["tensors"][0]["shape"] = {1, "x"}; }).find("shape") != std::string::npos);
  CHECK(broken([](json& m) { m["bounds"][0].erase("contract"); }) == "a bound lacks 'contract'");
  CHECK(broken([](json& m) { m["colour"] = "blue"; }) == "the manifest has an unknown key 'colour'");
  CHECK(broken([](json& m) { m["tensors"][0]["sha256"] = "00"; }).find("sha256") != std::string::npos);
  CHECK(broken([](json& m) { m["tensors"][0]["dtype"] = "F8"; }).find("F8") != std::string::npos);
  CHECK(broken([](json& m) { m["formats"]["qkv"] = "fp8"; }).find("fp8") != std::string::npos);
  CHECK(broken([](json& m) { m["contents"]["states"] = 1; }) == "contents: 'states' is not true or false");
  CHECK(broken([](json& m) { m["generator"]["commit"] = "HEAD"; }) == "generator: 'commit' is no commit's hash");
  CHECK(broken([](json& m) { m["generator"]["commit"] = "0123456789ab-dirty"; }).empty());
  CHECK(broken([](json& m) { m["generator"]["program"] = "me"; }) == "generator: 'program' is not 'kdacheck golden generate'");
  CHECK(manifest_breach(json::array()) == "the manifest is no JSON object");
}

namespace {

/// Holds the program to what the schema file says of one part of a manifest: these keys, all of them, and no other.
void hold_to_schema(const json& schema, json manifest, const json::json_pointer& place, std::size_t& keys) {
  const json part = manifest[place];
  if (schema["type"] == "array" && schema["items"].contains("properties"))
    return hold_to_schema(schema["items"], manifest, place / 0, keys);
  if (!schema.contains("properties")) return;
  INFO("at '" << place.to_string() << "'");
  CHECK(schema["additionalProperties"] == false);
  CHECK(schema["required"].size() == schema["properties"].size());
  CHECK(part.size() == schema["properties"].size());
  for (const auto& [key, below] : schema["properties"].items()) {
    INFO(key);
    json without = manifest, odd = manifest;
    without[place].erase(key);
    odd[place][key] = nullptr;
    CHECK(manifest_breach(without));
    CHECK(manifest_breach(odd));
    ++keys;
    if (below.contains("type")) hold_to_schema(below, manifest, place / key, keys);
  }
  manifest[place]["colour"] = "blue";
  CHECK(manifest_breach(manifest).value_or("").find("unknown key 'colour'") != std::string::npos);
}

} // namespace

TEST_CASE("the schema file and the program demand the same keys, at every depth, and know the same formats and types") {
  std::ifstream file(fs::path(KDACHECK_GOLDEN) / "manifest.schema.json");
  const json schema = json::parse(file), manifest = manifest_of(small_case(), "0123456789ab");
  std::size_t keys = 0;
  hold_to_schema(schema, manifest, json::json_pointer(), keys);
  CHECK(keys == 14 + 3 + 3 + 3 + 2 + 5 + 2);
  const json& formats = schema["properties"]["formats"]["properties"];
  for (const auto& [key, values] : formats.items()) {
    CHECK(values["enum"].size() == 5);
    for (const json& each : values["enum"]) CHECK(format_named(each.get<std::string>()));
  }
  const json& types = schema["properties"]["tensors"]["items"]["properties"]["dtype"]["enum"];
  CHECK(types.size() == 8);
  for (const json& each : types) CHECK(element_type_named(each.get<std::string>()));
}

TEST_CASE("a manifest's text is the manifest, one tensor a line") {
  const json manifest = manifest_of(small_case(), "0123456789ab");
  const std::string text = manifest_text(manifest);
  CHECK(json::parse(text) == manifest);
  std::size_t lines = 0;
  for (auto at = text.find("\"sha256\""); at != std::string::npos; at = text.find("\"sha256\"", at + 1)) {
    const auto end = text.find('\n', at);
    CHECK(text.find("\"sha256\"", at + 1) > end);
    ++lines;
  }
  CHECK(lines == manifest["tensors"].size());
}

TEST_CASE("generating again writes nothing, verifying finds nothing") {
  const Folder set;
  CHECK(store_golden(set.path, small_case(), "0123456789ab").kind == GoldenOutcome::Kind::written);
  const std::string before = text_of(set.path / "small/tensors.safetensors");
  CHECK(store_golden(set.path, small_case(), "0123456789ab-dirty").kind == GoldenOutcome::Kind::same);
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

TEST_CASE("a candidate that claims more than today's oracle proves is not accepted") {
  const Folder set;
  store_golden(set.path, small_case(), "");
  const std::string before = text_of(set.path / "small/tensors.safetensors");
  store_golden(set.path, small_case(8), "");
  const std::string place = (set.path / "small.new/manifest.json").string();
  nlohmann::json manifest = nlohmann::json::parse(text_of(place));
  bool narrowed = false;
  for (auto& tensor : manifest["tensors"])
    if (tensor.contains("radius") && tensor["radius"] > 0 && !narrowed)
      tensor["radius"] = tensor["radius"].get<double>() / 64, narrowed = true;
  REQUIRE(narrowed);
  write_text(place, manifest.dump());
  CHECK_THROWS_WITH(accept_golden(set.path, "small"), Catch::Contains("cannot be accepted") && Catch::Contains("radius"));
  CHECK(text_of(set.path / "small/tensors.safetensors") == before);
}

TEST_CASE("a damaged candidate is not accepted, and a candidate that gives way to another is spoken of") {
  const Folder set;
  store_golden(set.path, small_case(), "");
  const std::string before = text_of(set.path / "small/tensors.safetensors");
  const auto says_so = [](const GoldenOutcome& outcome) {
    return std::ranges::count(outcome.remarks, std::string("small.new held another candidate: replaced"));
  };
  CHECK(says_so(store_golden(set.path, small_case(8), "")) == 0);
  CHECK(says_so(store_golden(set.path, small_case(8), "")) == 0);
  CHECK(says_so(store_golden(set.path, small_case(9), "")) == 1);
  write_text(set.path / "small.new/tensors.safetensors", "");
  CHECK_THROWS_AS(accept_golden(set.path, "small"), BadFile);
  CHECK(text_of(set.path / "small/tensors.safetensors") == before);
  CHECK(fs::exists(set.path / "small.new"));
  fs::remove_all(set.path / "small.new");
  fs::create_directories(set.path / "small.new");
  write_text(set.path / "small.new/notes.txt", "mine");
  CHECK_THROWS_AS(store_golden(set.path, small_case(8), ""), BadFile);
  CHECK(text_of(set.path / "small.new/notes.txt") == "mine");
}

TEST_CASE("diff of two sets tells cases that are new, gone and called otherwise") {
  const Folder left, right;
  for (const Folder* set : {&left, &right}) store_golden(set->path, small_case(), "");
  GoldenCase only = small_case(8);
  only.name = "only-there";
  store_golden(left.path, only, "");
  fs::rename(right.path / "small", right.path / "other-name");
  const auto told = diff_golden(left.path, right.path);
  REQUIRE(told.size() == 3);
  CHECK(told[0].remarks == std::vector<std::string>{"the case is gone"});
  CHECK(told[1].remarks == std::vector<std::string>{"the case was called small"});
  CHECK(told[2].remarks == std::vector<std::string>{"the case is called other-name now"});
  CHECK(diff_golden(right.path, left.path).at(0).remarks == std::vector<std::string>{"the case is new"});
}

TEST_CASE("diff tells what manifests say differently") {
  const Folder left, right;
  store_golden(left.path, small_case(), "");
  store_golden(right.path, small_case(), "");
  CHECK(diff_golden(left.path, right.path).at(0).kind == GoldenOutcome::Kind::same);
  json manifest = json::parse(text_of(right.path / "small/manifest.json"));
  manifest["why"] = "another reason";
  for (json& tensor : manifest["tensors"])
    if (tensor["name"] == "o.high") tensor["radius"] = 1e-9;
  write_text(right.path / "small/manifest.json", manifest_text(manifest));
  const GoldenOutcome outcome = diff_golden(left.path, right.path).at(0);
  CHECK(outcome.kind == GoldenOutcome::Kind::changed);
  CHECK(outcome.remarks.size() == 2);
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
  other["schema_version"] = 9;
  write_text(manifest, other.dump());
  CHECK(kind() == GoldenOutcome::Kind::damaged);
  write_text(manifest, "{");
  CHECK(kind() == GoldenOutcome::Kind::damaged);
  write_text(manifest, good_manifest);
  CHECK(kind() == GoldenOutcome::Kind::same);
}

TEST_CASE("the index names every manifest of a set, and each departure from it is a sentence") {
  using enum GoldenOutcome::Kind;
  const Folder set;
  store_golden(set.path, small_case(), "");
  GoldenCase second = small_case(8);
  second.name = "second";
  store_golden(set.path, second, "");
  const std::string index = text_of(set.path / "index.sha256"), manifest = text_of(set.path / "small/manifest.json");
  CHECK(read_index(set.path).size() == 2);
  CHECK(index.find(hash_for_index(set.path / "small") + "  small/manifest.json\n") != std::string::npos);

  json why = json::parse(manifest);
  why["why"] = "another reason"; // nothing that the recipe gives
  write_text(set.path / "small/manifest.json", manifest_text(why));
  const GoldenOutcome tampered = verify_golden(set.path).at(1);
  CHECK(tampered.kind == damaged);
  CHECK(tampered.remarks.at(0) == "manifest.json is not the one of which index.sha256 holds the sha256");
  write_text(set.path / "small/manifest.json", manifest);

  fs::rename(set.path / "second", set.path / "moved");
  const auto moved = verify_golden(set.path);
  REQUIRE(moved.size() == 3);
  CHECK(moved[0].remarks.at(0) == "index.sha256 does not name its manifest.json");
  CHECK(moved[2].remarks.at(1) == "moved holds what it held: it was renamed");
  CHECK(moved[1].kind == same);
  CHECK(moved[2].remarks.at(0) == "index.sha256 names it, but there is no second/manifest.json");
  fs::rename(set.path / "moved", set.path / "second");

  fs::remove(set.path / "index.sha256");
  CHECK_THROWS_WITH(verify_golden(set.path), Catch::Contains("has no index.sha256"));
  for (const std::string& broken :
       {std::string("x"), index + index, "0" + index, index.substr(0, 66) + "../small/manifest.json\n", index.substr(0, 66) + "small\n"}) {
    write_text(set.path / "index.sha256", broken);
    CHECK_THROWS_AS(verify_golden(set.path), BadFile);
    CHECK_THROWS_AS(store_golden(set.path, small_case(), ""), BadFile);
    CHECK(text_of(set.path / "index.sha256") == broken);
  }
}

TEST_CASE("generating over a damaged case leaves it as it is and writes the right one beside it") {
  const Folder set;
  store_golden(set.path, small_case(), "");
  const std::string good = text_of(set.path / "small/tensors.safetensors"), half = good.substr(0, good.size() / 2);
  write_text(set.path / "small/tensors.safetensors", half);
  CHECK(store_golden(set.path, small_case(), "").kind == GoldenOutcome::Kind::damaged);
  CHECK(text_of(set.path / "small/tensors.safetensors") == half);
  CHECK(text_of(set.path / "small.new/tensors.safetensors") == good);
  accept_golden(set.path, "small");
  CHECK(verify_golden(set.path).at(0).kind == GoldenOutcome::Kind::same);
}

TEST_CASE("a case's name is one that a folder, an index and a set can have") {
  for (const char* good : {"a", "gaussian-keys.fp32.7", "found-o-of-cpu.chunk64_x.1a2b"}) CHECK(is_case_name(good));
  for (const char* bad :
       {"", ".", "..", ".a", "a/b", "a b", "a\nb", "a\tb", "a\x7f", "\xc3\xa4", "a.new", "a.old", "a.partial", "a.safetensors"}) {
    INFO(bad);
    CHECK_FALSE(is_case_name(bad));
  }
  CHECK(is_case_name(std::string(200, 'x')));
  CHECK_FALSE(is_case_name(std::string(201, 'x')));
}

TEST_CASE("of another shape a case is said to be made from another recipe, not to have narrow bounds") {
  const Folder set;
  store_golden(set.path, small_case(), "");
  Recipe longer = small_recipe();
  longer.shape.T = 9;
  const GoldenOutcome outcome = store_golden(set.path, golden_case("small", longer, everything), "");
  CHECK(outcome.kind == GoldenOutcome::Kind::changed);
  CHECK(outcome.remarks ==
        std::vector<std::string>{"another recipe: " + to_token(small_recipe()) + " is stored, " + to_token(longer) + " is due"});
}

TEST_CASE("what waits to be accepted is no case of the set") {
  using enum GoldenOutcome::Kind;
  const Folder set, other;
  store_golden(set.path, small_case(), "");
  store_golden(set.path, small_case(8), "");
  store_golden(other.path, small_case(), "");
  const auto verified = verify_golden(set.path), compared = diff_golden(other.path, set.path);
  REQUIRE(verified.size() == 2);
  CHECK(verified[0].kind == same);
  CHECK(verified[1].kind == waiting);
  REQUIRE(compared.size() == 2);
  CHECK(compared[0].kind == same);
  CHECK(compared[1].kind == waiting);
  write_text(set.path / "small.new/tensors.safetensors", "");
  CHECK(verify_golden(set.path).at(1).kind == damaged);
}

TEST_CASE("a file, a case and nothing in the place of a set are told apart") {
  const Folder set;
  CHECK_THROWS_WITH(verify_golden(set.path), Catch::Contains("holds no golden case"));
  CHECK_THROWS_WITH(verify_golden(set.path / "x"), "there is no folder " + (set.path / "x").string());
  write_text(set.path / "file", "");
  CHECK_THROWS_WITH(verify_golden(set.path / "file"), Catch::Contains("is a file"));
  CHECK_THROWS_WITH(diff_golden(set.path / "file", set.path), Catch::Contains("is a file"));
  store_golden(set.path, small_case(), "");
  CHECK_THROWS_WITH(verify_golden(set.path / "small"), Catch::Contains("is one golden case"));
}

TEST_CASE("a list of cases gives names, formats and reasons, and is refused with the line's number") {
  const std::string token = to_token(small_recipe());
  const auto cases = parse_listed_cases(
      "# a heading\n\n# why\n#  in two lines\none fp32 " + token + "\ntwo bf16 " + token + "\n\nthree fp16 " + token + "\n", "list");
  REQUIRE(cases.size() == 3);
  CHECK(cases[0].why == "why in two lines");
  CHECK(cases[1].why == "why in two lines");
  CHECK(cases[2].why.empty());
  CHECK(cases[1].dtype == Format::bf16);
  CHECK(cases[0].recipe == small_recipe());
  for (const std::string& line : std::vector<std::string>{"one fp32", "one fp8 ", "../one fp32 ", ".one fp32 ", "one.new fp32 ",
                                                          "one fp32 x", "one fp32 " + token + " more"}) {
    INFO(line);
    const std::string text = "# why\n" + (line.ends_with(' ') ? line + token : line) + "\n";
    CHECK_THROWS_WITH(parse_listed_cases(text, "list"), Catch::StartsWith("list, line 2: "));
  }
  CHECK_THROWS_WITH(parse_listed_cases("a fp32 " + token + "\na fp32 " + token, "list"), Catch::Contains("twice"));
  CHECK_THROWS_WITH(parse_listed_cases("# nothing\n", "list"), "list lists no case");
}

TEST_CASE("a folder without a case is refused") {
  const Folder set;
  CHECK_THROWS_AS(verify_golden(set.path), BadFile);
  CHECK_THROWS_AS(diff_golden(set.path, set.path), BadFile);
  const Folder other;
  store_golden(other.path, small_case(), "");
  CHECK_THROWS_AS(diff_golden(set.path, other.path), BadFile);
  CHECK_THROWS_AS(diff_golden(other.path, set.path / "nowhere"), BadFile);
  CHECK_THROWS_AS(diff_golden(other.path, other.path / "small"), BadFile);
  CHECK(diff_golden(other.path, other.path).at(0).kind == GoldenOutcome::Kind::same);
  const Folder foreign;
  store_golden(foreign.path, small_case(), "");
  json manifest = json::parse(text_of(foreign.path / "small/manifest.json"));
  manifest["schema_version"] = 9;
  write_text(foreign.path / "small/manifest.json", manifest.dump());
  CHECK_THROWS_WITH(diff_golden(other.path, foreign.path), Catch::Contains("schema version 9"));
  CHECK_THROWS_WITH(diff_golden(foreign.path / "small", other.path / "small"), Catch::Contains("schema version 9"));
}
