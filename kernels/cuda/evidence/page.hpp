#pragma once
// The evidence of a run on a GPU, as a page and as a picture.

#include <nlohmann/json.hpp>
#include <string>

namespace kdacheck::evidence {

std::string markdown_of(const nlohmann::json& evidence);

/// Operations per byte against operations per second, under the copy and matrix-product rates of the same run, as SVG; empty where the
/// run counted no operations.
std::string roofline_of(const nlohmann::json& evidence);

} // namespace kdacheck::evidence
