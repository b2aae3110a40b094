#pragma once
// Tensors that never change: a case's inputs in their own type, what is true of it as fp64 high and low parts, and a
// manifest that says where all of it comes from and how far it can be trusted.

#include "../properties/cases/recipe.hpp"
#include "golden_bounds.hpp"
#include "recorded.hpp"

#include <nlohmann/json_fwd.hpp>

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kdacheck {

/// What a golden case holds besides inputs, o and final_state.
struct GoldenContents {
  InputFormats formats;
  bool gradients = false;               ///< dq dk dv dg dbeta ...
  std::int64_t intermediates_chunk = 0; ///< chunk length of G, Akk, Aqk, T, W, U and the states at chunk starts; 0: none
  bool states = false;                  ///< the state after every token (a decode chain), per sequence as one run
};

/// Every tensor with its certified radius (0 for inputs and bounds, -1 where none is certified: chunk intermediates, whose 50
/// digits are not).
struct GoldenTensor {
  OwnedTensor tensor;
  double radius = 0;
};

/// Whether a tensor of that name holds bounds: o.bound.fp32 and the like.
bool holds_bounds(std::string_view tensor);

struct GoldenCase {
  std::string name; ///< folder
  std::string why;  ///< why it is kept; empty: what its regime exposes
  Recipe recipe;
  GoldenContents contents;
  std::vector<GoldenBound> bounds; ///< what tensors o.bound.NAME, final_state.bound.NAME and dq.bound.NAME ... hold
  std::vector<GoldenTensor> tensors;
  Metadata metadata; ///< of the safetensors file
  std::string arithmetic;
  int bits = 0;
};

/// Computes a case: the same bits on every machine and for any number of threads. The truth is computed in double-double
/// and escalates until every radius is at most 2^-60 of its tensor's largest element, or nothing more precise is left.
GoldenCase golden_case(std::string name, const Recipe&, const GoldenContents&);

/// Whether `golden generate` gives that name to a case that the recipe's regime draws: REGIME.DTYPE.SEED.
bool names_a_draw(std::string_view name_of_case, const Recipe&, Format);

/// manifest.json, schema version 2 (manifest.schema.json; version 1 had no bounds). `commit` is the generator's.
nlohmann::json manifest_of(const GoldenCase&, const std::string& commit);

/// Its text: one tensor a line.
std::string manifest_text(const nlohmann::json& manifest);

/// One sentence for the first breach of the schema, or nothing.
std::optional<std::string> manifest_breach(const nlohmann::json&);

/// Recipe and contents that a manifest names. Throws BadFile.
GoldenCase blueprint_of(const nlohmann::json& manifest, const std::string& source);

} // namespace kdacheck
