#pragma once
// The main pictures of a run as SVG, for papers: drawn by matplotlib from what the page knows (page_data.hpp).

#include <filesystem>
#include <string_view>

namespace kdacheck {

/// Writes the pictures that the data allows into a folder, which is made if need be. Throws FileTrouble with one sentence where
/// Python or matplotlib is missing or the folder cannot be written.
void draw_figures(std::string_view page_data, const std::filesystem::path& folder);

} // namespace kdacheck
