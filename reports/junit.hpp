#pragma once
// junit.xml: one testsuite per kernel, one testcase per property x regime.

#include "results.hpp"

#include <string>
#include <string_view>

namespace kdacheck {

/// Failed groups hold a <failure> (crashed and timed out: <error>) with place, detail and replay command; groups whose
/// gravest verdict is inconclusive or not supported are <skipped> with the reason.
std::string to_junit_xml(const Results&);

/// The text with everything replaced that XML 1.0 forbids: control characters, non-characters, bytes that are not UTF-8.
std::string xml_characters(std::string_view);

} // namespace kdacheck
