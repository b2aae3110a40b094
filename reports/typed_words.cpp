#include "typed_words.hpp"

#include "../properties/selection.hpp"

#include <algorithm>
#include <string>
#include <vector>

namespace kdacheck {
namespace {

constexpr const char* empty_value = "needs a value that is not empty";

const auto every = [](const CLI::App*) { return true; };

void refuse_empty_values(CLI::App& command) {
  for (CLI::Option* option : command.get_options())
    if (option->get_items_expected_max() > 0)
      option->check(CLI::Validator([](const std::string& text) { return text.empty() ? std::string(empty_value) : ""; }, ""));
  for (CLI::App* below : command.get_subcommands(every)) refuse_empty_values(*below);
}

/// "; the nearest to ... is ..." for the first word that is no command or option, or nothing.
std::string nearest_spelling(const CLI::App& app, int argc, char** argv) {
  const CLI::App* command = &app;
  int next = 1;
  for (; next < argc; ++next) {
    const auto below = command->get_subcommands(every);
    const auto found = std::find_if(below.begin(), below.end(), [&](const CLI::App* each) { return each->get_name() == argv[next]; });
    if (found == below.end()) break;
    command = *found;
  }
  std::vector<std::string> names;
  std::string wrong;
  if (const auto below = command->get_subcommands(every); !below.empty()) {
    for (const CLI::App* each : below) names.push_back(each->get_name());
    if (next < argc) wrong = argv[next];
  } else {
    for (const CLI::Option* option : command->get_options())
      for (const std::string& spelling : option->get_lnames()) names.push_back("--" + spelling);
    for (; next < argc && wrong.empty(); ++next) {
      const std::string word = std::string(argv[next]).substr(0, std::string(argv[next]).find('='));
      if (word.starts_with("--") && std::find(names.begin(), names.end(), word) == names.end()) wrong = word;
    }
  }
  return wrong.empty() ? "" : "; the nearest to '" + wrong + "' is '" + nearest_name(wrong, names) + "'";
}

} // namespace

void parse_typed(CLI::App& app, int argc, char** argv) {
  refuse_empty_values(app);
  try {
    for (int i = 1; i < argc; ++i)
      if (const std::string word = argv[i]; word.starts_with("--") && word.find('=') == word.size() - 1)
        throw CLI::ValidationError(word.substr(0, word.size() - 1), empty_value); // else the next word would be its value
    app.parse(argc, argv);
  } catch (const CLI::Success&) {
    throw;
  } catch (const CLI::ExtrasError& error) { // whose own sentence has them from the last to the first
    std::string words;
    for (const std::string& word : app.remaining(true)) words += " " + word;
    throw UsageError((words.empty() ? std::string(error.what()) : "The following arguments were not expected:" + words) +
                     nearest_spelling(app, argc, argv));
  } catch (const CLI::ParseError& error) {
    throw UsageError(error.what() + nearest_spelling(app, argc, argv));
  }
}

} // namespace kdacheck
