// However a run ends, nothing that it started is left: no process, in whatever session, and no folder in shared memory.

#include <catch2/catch.hpp>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Processes that have inherited a mark by their environment.
std::vector<std::string> marked(const std::string& mark) {
  std::vector<std::string> found;
  DIR* all = opendir("/proc");
  REQUIRE(all != nullptr);
  while (const dirent* entry = readdir(all)) {
    const std::string name = entry->d_name;
    if (name.find_first_not_of("0123456789") == name.npos && contents("/proc/" + name + "/environ").find(mark) != std::string::npos)
      found.push_back(name);
  }
  closedir(all);
  return found;
}

/// The folder that the supervisor of a worker program is to remove, if any of the processes is one.
std::string folder_of(const std::vector<std::string>& processes) {
  const std::string before = std::string("supervise") + '\0' + "standard" + '\0';
  for (const std::string& process : processes) {
    const std::string words = contents("/proc/" + process + "/cmdline");
    if (const auto at = words.find(before); at != words.npos) return words.c_str() + at + before.size();
  }
  return {};
}

template <class Condition> bool comes_true(const Condition& condition, int seconds) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

enum class To : unsigned char { program, group }; ///< a signal from another program, or from the terminal
enum class Begins : unsigned char { no, yes };    ///< whether the run comes to its first case

struct Ending {
  int status = -1;    ///< as of the program's exit, -1: killed
  double seconds = 0; ///< from the first signal on
  bool reported = false;
};

/// Starts a run, waits until it has `processes` of them, sends it the signals, and looks for what is left. Calls may take a minute.
Ending ends_without_a_trace(const std::string& source, std::size_t processes, const std::vector<int>& signals, To to = To::program,
                            std::chrono::milliseconds pause = std::chrono::milliseconds(700), Begins begins = Begins::yes) {
  static int runs = 0;
  const std::string mark = "KDACHECK_TEST_MARK=" + std::to_string(getpid()) + "." + std::to_string(++runs) + ".";
  const std::string out = (std::filesystem::temp_directory_path() / ("kdacheck-interruption-" + std::to_string(getpid()))).string();
  const int program = fork();
  REQUIRE(program >= 0);
  if (program == 0) {
    setpgid(0, 0);
    const int null = open("/dev/null", O_RDWR);
    dup2(null, 0), dup2(null, 1), dup2(null, 2);
    const std::string line = mark + " exec '" KDACHECK_PROGRAM "' verify " + source + " --threads 1 --call-timeout 60 --out '" + out + "'";
    execl("/bin/sh", "sh", "-c", line.c_str(), nullptr);
    _exit(127);
  }
  if (begins == Begins::yes) CHECK(comes_true([&] { return std::filesystem::exists(out + "/cases.jsonl"); }, 60));
  CHECK(comes_true([&] { return marked(mark).size() >= processes; }, 60));
  std::this_thread::sleep_for(std::chrono::seconds(1)); // a call, if it comes to that, is in flight then
  const std::string folder = folder_of(marked(mark));
  const auto start = std::chrono::steady_clock::now();
  for (std::size_t i = 0; i < signals.size(); ++i) {
    if (i) std::this_thread::sleep_for(pause);
    kill(to == To::group ? -program : program, signals[i]);
  }
  Ending ending;
  int status = 0;
  CHECK(comes_true([&] { return waitpid(program, &status, WNOHANG) != 0; }, 10));
  ending.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (WIFEXITED(status)) ending.status = WEXITSTATUS(status);
  CHECK(comes_true([&] { return marked(mark).empty(); }, 10));
  if (!folder.empty()) CHECK(comes_true([&] { return !std::filesystem::exists(folder); }, 10));
  ending.reported = std::filesystem::exists(out + "/report.json");
  std::filesystem::remove_all(out);
  return ending;
}

const std::string one_case = " --property agrees-with-the-oracle --regime usual-decay";
const std::string plugin = "--plugin '" KDACHECK_MISBEHAVING_PLUGIN "' --kernel leaves_a_daemon_and_hangs" + one_case;
const std::string starting = "--exec 'python3 " KDACHECK_MISBEHAVING_WORKER " never_starts'" + one_case;
const std::string worker = "--exec 'python3 " KDACHECK_MISBEHAVING_WORKER " hangs'" + one_case;
const std::string modules = "--module '*' --tier nightly";

} // namespace

// The program, a supervisor, a worker, and in the first two the worker's daemon.
TEST_CASE("one Ctrl-C ends a run at once though a call hangs, with its report, and workers and daemons with it") {
  for (const auto& [source, processes] : {std::pair(plugin, 4), std::pair(worker, 3)})
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
      const Ending ending = ends_without_a_trace(source, static_cast<std::size_t>(processes), {signal});
      INFO(source << ", signal " << signal);
      CHECK(ending.status == 4);
      CHECK(ending.reported);
      CHECK(ending.seconds < 3);
    }
}
TEST_CASE("a signal that comes twice at once is one: `timeout` sends it to a program and to its group") {
  for (int attempt = 0; attempt < 3; ++attempt) {
    const Ending ending = ends_without_a_trace(worker, 3, {SIGTERM, SIGTERM}, To::program, std::chrono::milliseconds(attempt));
    CHECK(ending.status == 4);
    CHECK(ending.reported);
  }
}
TEST_CASE("a run that is killed takes a hung plug-in and its daemon along") { ends_without_a_trace(plugin, 4, {SIGKILL}); }
TEST_CASE("a run that is killed takes a worker program and its folder along") { ends_without_a_trace(worker, 3, {SIGKILL}); }
TEST_CASE("signals to the whole group of the terminal, or that ask it to end again and again, leave nothing either") {
  ends_without_a_trace(plugin, 4, {SIGINT, SIGINT}, To::group);
  ends_without_a_trace(plugin, 4, {SIGTERM, SIGTERM}, To::group);
  ends_without_a_trace(worker, 3, {SIGINT}, To::group);
  ends_without_a_trace(worker, 3, {SIGHUP, SIGINT, SIGKILL}, To::group, std::chrono::milliseconds(5));
}
TEST_CASE("a run that is interrupted while a worker starts leaves nothing") {
  for (const int signal : {SIGINT, SIGTERM, SIGKILL}) ends_without_a_trace(starting, 3, {signal}, To::program, {}, Begins::no);
}
// The program and the process of its modules' cases.
TEST_CASE("however a run of modules ends, the process of their cases ends with it") {
  ends_without_a_trace(modules, 2, {SIGKILL});
  const Ending ending = ends_without_a_trace(modules, 2, {SIGINT});
  CHECK(ending.status == 4);
  CHECK(ending.reported);
  ends_without_a_trace(modules, 2, {SIGTERM, SIGTERM}, To::group);
}
