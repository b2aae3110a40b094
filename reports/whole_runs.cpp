#include "whole_runs.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <stdexcept>

extern char** environ;

namespace kdacheck {
namespace {

/// A new folder that is removed at the end.
struct Folder {
  std::filesystem::path path;
  Folder() {
    std::string text = (std::filesystem::temp_directory_path() / "kdacheck-bench-XXXXXX").string();
    if (!mkdtemp(text.data())) throw std::runtime_error("cannot make a temporary folder");
    path = text;
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
};

/// Runs this program's verify with its table dropped and its progress shown, and returns how many milliseconds it took.
double timed_verify(std::vector<std::string> words, const std::filesystem::path& out) {
  words.insert(words.begin(), {"kdacheck", "verify"});
  words.insert(words.end(), {"--out", out.string()});
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
  const auto start = std::chrono::steady_clock::now();
  pid_t child = 0;
  const int trouble = posix_spawn(&child, "/proc/self/exe", &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (trouble != 0) throw std::runtime_error("cannot start this program again");
  int status = 0;
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR) throw std::runtime_error("lost a process of this program");
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    throw std::runtime_error(
        fmt::format("verify did not pass (status {}): run it to see why", WIFEXITED(status) ? WEXITSTATUS(status) : -1));
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

std::size_t cases_of(const std::filesystem::path& out) {
  std::ifstream stream(out / "report.json");
  return nlohmann::json::parse(stream).at("summary").at("cases");
}

void time_verify(Bench& bench, std::string what, const std::vector<std::string>& words, int repeats) {
  std::vector<double> times;
  std::size_t cases = 0;
  for (int i = 0; i < repeats; ++i) {
    const Folder folder;
    times.push_back(timed_verify(words, folder.path));
    cases = cases_of(folder.path);
  }
  std::sort(times.begin(), times.end());
  bench.rows.push_back(
      {.kernel = "verify",
       .what = std::move(what),
       .label = fmt::format("{} cases, {:.0f} a second", cases, 1e3 * static_cast<double>(cases) / times[times.size() / 2]),
       .median_ms = times[times.size() / 2],
       .least_ms = times.front(),
       .most_ms = times.back()});
  std::fprintf(stderr, "verify, %s: %.2f s\n", bench.rows.back().what.c_str(), bench.rows.back().median_ms * 1e-3);
}

} // namespace

void bench_whole_runs(Bench& bench) {
  time_verify(bench, "one kernel, law and regime",
              {"--kernel", "cpu.recurrence.fp32", "--property", "agrees-with-the-oracle", "--regime", "gaussian-keys"}, bench.repeats);
  time_verify(bench, "quick tier, all kernels and laws", {"--tier", "quick"}, 1);
}

} // namespace kdacheck
