#include "figures.hpp"

#include "../reference/atomic_file.hpp"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <string>
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

/// The program's exit status, or -1 if it did not start or did not end by itself.
int status_of(std::array<std::string, 4> words) {
  std::array<char*, 5> argv{};
  for (std::size_t i = 0; i < words.size(); ++i) argv[i] = words[i].data();
  pid_t child = 0;
  if (posix_spawnp(&child, argv[0], nullptr, nullptr, argv.data(), environ) != 0) return -1;
  int status = 0;
  if (waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -1;
  return WEXITSTATUS(status);
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
  int status = no_matplotlib;
  for (const std::string& python : pythons)
    if (status == no_matplotlib) status = status_of({python, KDACHECK_DRAW, data.path.string(), folder.string()});
  if (status == no_matplotlib)
    throw FileTrouble("the figures need matplotlib, which " + pythons.front() + " does not have: install Debian's python3-matplotlib");
  if (status != 0) throw FileTrouble(std::string("the figures were not drawn: ") + KDACHECK_DRAW + " failed");
}

} // namespace kdacheck
