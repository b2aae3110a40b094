#pragma once
// What was typed behind the program's name, read by the options that it declares.

#include <CLI/CLI.hpp>

namespace kdacheck {

/// Parses the words. Throws UsageError with one sentence, which names the command or option nearest to one that there is not, and refuses
/// an empty value: it would count as not given. CLI::Success (help was asked for) passes.
void parse_typed(CLI::App&, int argc, char** argv);

} // namespace kdacheck
