#include "figures.hpp"

#include "../reference/atomic_file.hpp"
#include "../reference/named_file.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <string>
#include <system_error>
#include <vector>

extern char** environ;

namespace kdacheck {
namespace {

/// A file that is gone with the object.
struct TemporaryFile {
  std::filesystem::path path;
  explicit TemporaryFile(std::string_view text) {
    std::string pattern = (std::filesystem::temp_directory_path() / "kdacheck-page-XXXXXX").string();
    const int descriptor = ::mkstemp(pattern.data());
    if (descriptor < 0) throw FileTrouble("cannot write a temporary file");
    ::close(descriptor);
    path = pattern;
    write_atomically(path, text);
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
  }
};

/// How a program ended.
struct Ended {
  int status = 0;     ///< its own, or -1 if it did not start or did not end by itself
  std::string reason; ///< why it did not start, or the last line that it wrote on standard error
};

std::string last_line(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text.substr(text.rfind('\n') + 1); // npos + 1 is 0: all of it
}

Ended run(std::array<std::string, 4> words) {
  std::array<char*, 5> argv{};
  for (std::size_t i = 0; i < words.size(); ++i) argv[i] = words[i].data();
  const TemporaryFile errors("");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, errors.path.c_str(), O_WRONLY | O_TRUNC, 0600);
  pid_t child = 0;
  const int trouble = posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (trouble != 0) return {-1, "it does not start: " + std::system_category().message(trouble)};
  int status = 0;
  if (waitpid(child, &status, 0) != child || !WIFEXITED(status)) return {-1, "it was ended by a signal"};
  return {WEXITSTATUS(status), last_line(text_of_file(errors.path))};
}

} // namespace

void draw_figures(std::string_view page_data, const std::filesystem::path& folder) {
  constexpr int no_matplotlib = 69; // draw.py's own
  make_folder(folder);
  const TemporaryFile data(page_data);
  // A python3 of one's own stands before Debian's in many paths and has no matplotlib.
  const char* chosen = std::getenv("KDACHECK_PYTHON");
  const std::vector<std::string> pythons =
      chosen && *chosen ? std::vector<std::string>{chosen} : std::vector<std::string>{"python3", "/usr/bin/python3"};
  std::string tried; // "python3 (No module named 'matplotlib')"
  for (const std::string& python : pythons) {
    const Ended ended = run({python, KDACHECK_DRAW, data.path.string(), folder.string()});
    if (ended.status == 0) return;
    if (ended.status != no_matplotlib && ended.status != -1)
      throw FileTrouble(std::string("the figures were not drawn: ") + python + " " + KDACHECK_DRAW + " ended with status " +
                        std::to_string(ended.status) + (ended.reason.empty() ? "" : ": " + ended.reason));
    tried += (tried.empty() ? "" : ", ") + python + " (" + ended.reason + ")";
  }
  throw FileTrouble("the figures need a Python with matplotlib, and there is none in " + tried +
                    ": install Debian's python3-matplotlib, or name a Python that has it in KDACHECK_PYTHON");
}

} // namespace kdacheck
