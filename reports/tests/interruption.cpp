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

/// Starts a run, waits until it has `processes` of them, sends it the signals, and looks for what is left.
void ends_without_a_trace(const std::string& source, std::size_t processes, const std::vector<int>& signals, int call_timeout = 60,
                          To to = To::program) {
  static int runs = 0;
  const std::string mark = "KDACHECK_TEST_MARK=" + std::to_string(getpid()) + "." + std::to_string(++runs) + ".";
  const std::string out = (std::filesystem::temp_directory_path() / ("kdacheck-interruption-" + std::to_string(getpid()))).string();
  const int program = fork();
  REQUIRE(program >= 0);
  if (program == 0) {
    setpgid(0, 0);
    const int null = open("/dev/null", O_RDWR);
    dup2(null, 0), dup2(null, 1), dup2(null, 2);
    const std::string line = mark + " exec '" KDACHECK_PROGRAM "' verify " + source + " --threads 1 --call-timeout " +
                             std::to_string(call_timeout) + " --out '" + out + "'";
    execl("/bin/sh", "sh", "-c", line.c_str(), nullptr);
    _exit(127);
  }
  CHECK(comes_true([&] { return marked(mark).size() >= processes; }, 60));
  std::this_thread::sleep_for(std::chrono::seconds(1)); // the processes may still be those that were asked what there is
  const std::string folder = folder_of(marked(mark));
  for (const int signal : signals) {
    kill(to == To::group ? -program : program, signal);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  CHECK(comes_true([&] { return waitpid(program, nullptr, WNOHANG) != 0; }, 10));
  CHECK(comes_true([&] { return marked(mark).empty(); }, 10));
  if (!folder.empty()) CHECK(comes_true([&] { return !std::filesystem::exists(folder); }, 10));
  std::filesystem::remove_all(out);
}

const std::string one_case = " --property agrees-with-the-oracle --regime usual-decay";
const std::string plugin = "--plugin '" KDACHECK_MISBEHAVING_PLUGIN "' --kernel leaves_a_daemon_and_hangs" + one_case;
const std::string starting = "--exec 'python3 " KDACHECK_MISBEHAVING_WORKER " never_starts'" + one_case;
const std::string worker = "--exec 'python3 " KDACHECK_MISBEHAVING_WORKER " hangs'" + one_case;
const std::string modules = "--module '*' --tier nightly";

} // namespace

// The program, a supervisor, a worker, and in the first two the worker's daemon.
TEST_CASE("a second Ctrl-C ends a hung plug-in and its daemon with the run") { ends_without_a_trace(plugin, 4, {SIGINT, SIGINT}); }
TEST_CASE("a run that is killed takes a hung plug-in and its daemon along") { ends_without_a_trace(plugin, 4, {SIGKILL}); }
TEST_CASE("a second Ctrl-C ends a hung worker program and removes its folder") { ends_without_a_trace(worker, 3, {SIGINT, SIGINT}); }
TEST_CASE("a run that is killed takes a worker program and its folder along") { ends_without_a_trace(worker, 3, {SIGKILL}); }
// The case in flight is waited for, here until the time of its calls is up; no other is begun.
TEST_CASE("one Ctrl-C ends a run with the case in flight, and its workers with it") {
  ends_without_a_trace(plugin, 4, {SIGINT}, 1);
  ends_without_a_trace(worker, 3, {SIGINT}, 1);
}
TEST_CASE("signals to the whole group of the terminal, or that ask it to end, leave nothing either") {
  ends_without_a_trace(plugin, 4, {SIGINT, SIGINT}, 60, To::group);
  ends_without_a_trace(plugin, 4, {SIGTERM, SIGTERM}, 60, To::group);
  ends_without_a_trace(worker, 3, {SIGINT}, 1, To::group);
  ends_without_a_trace(worker, 3, {SIGTERM}, 1);
  ends_without_a_trace(worker, 3, {SIGHUP, SIGHUP}, 60, To::group);
}
TEST_CASE("a run that is interrupted while a worker starts leaves nothing") {
  for (const int signal : {SIGINT, SIGTERM, SIGKILL}) ends_without_a_trace(starting, 3, {signal});
}
// The program and the process of its modules' cases.
TEST_CASE("however a run of modules ends, the process of their cases ends with it") {
  ends_without_a_trace(modules, 2, {SIGKILL});
  ends_without_a_trace(modules, 2, {SIGINT});
  ends_without_a_trace(modules, 2, {SIGTERM, SIGTERM}, 60, To::group);
}
