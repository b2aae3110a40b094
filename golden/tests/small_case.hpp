#pragma once
// A small golden case, a folder for its set, and what tests read and write there.

#include "../golden_set.hpp"

#include <catch2/catch.hpp>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace kdacheck {

/// Gone with the object.
struct Folder {
  std::filesystem::path path;
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "kdacheck-golden-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path = pattern;
  }
  ~Folder() { std::filesystem::remove_all(path); }
};

inline Recipe small_recipe(std::uint64_t seed = 7) {
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

inline const GoldenContents everything{.formats = {.qkv = Format::bf16, .gate = Format::fp32, .beta = Format::fp32},
                                       .gradients = true,
                                       .intermediates_chunk = 2,
                                       .states = true};

inline GoldenCase small_case(std::uint64_t seed = 7) { return golden_case("small", small_recipe(seed), everything); }

inline const GoldenTensor& tensor_named(const GoldenCase& golden, const std::string& name) {
  for (const GoldenTensor& tensor : golden.tensors)
    if (tensor.tensor.name == name) return tensor;
  throw std::logic_error("no tensor " + name);
}

inline std::vector<double> numbers(const GoldenTensor& tensor) {
  return doubles({tensor.tensor.name, tensor.tensor.type, tensor.tensor.shape, tensor.tensor.bytes});
}

inline std::string text_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void write_text(const std::filesystem::path& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

} // namespace kdacheck
