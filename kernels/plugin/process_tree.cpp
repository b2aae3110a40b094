#include "process_tree.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <vector>

namespace kdacheck::plugin {
namespace {

/// The first bytes of a file as text; empty if it cannot be read.
struct Text {
  std::array<char, 2048> bytes{};
  explicit Text(const char* path) {
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    const auto got = read(file, bytes.data(), bytes.size() - 1);
    close(file);
    bytes[static_cast<std::size_t>(std::max<ssize_t>(got, 0))] = '\0';
  }
  /// The number after a word, or -1.
  std::int64_t after(const char* word) const {
    const char* found = std::strstr(bytes.data(), word);
    return found ? std::atoll(found + std::strlen(word)) : -1;
  }
};

struct Process {
  int id = 0, parent = 0;
  std::int64_t resident = 0;
};

std::int64_t page() { return sysconf(_SC_PAGESIZE); }

/// Every process that there is.
std::vector<Process> processes() {
  std::vector<Process> found;
  DIR* all = opendir("/proc");
  if (!all) return found;
  while (const dirent* entry = readdir(all)) {
    if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
    char path[300];
    std::snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
    const Text text(path);
    const char* at = std::strrchr(text.bytes.data(), ')'); // the second field, the name, may hold anything
    Process one{.id = std::atoi(entry->d_name)};
    for (int field = 3; at && field <= 24; ++field) {
      if ((at = std::strchr(at + 1, ' ')) == nullptr) break;
      if (field == 4) one.parent = std::atoi(at);
      if (field == 24) one.resident = std::atoll(at) * page();
    }
    if (at) found.push_back(one);
  }
  closedir(all);
  return found;
}

/// Those below this process.
std::vector<Process> descendants() {
  std::vector<Process> all = processes(), below;
  std::vector<int> parents{getpid()};
  while (!parents.empty()) {
    const int parent = parents.back();
    parents.pop_back();
    for (const Process& one : all)
      if (one.parent == parent) below.push_back(one), parents.push_back(one.id);
  }
  return below;
}

/// Kills the children of this process and returns how many there were.
int kill_children() {
  int count = 0;
  for (const Process& one : processes())
    if (one.parent == getpid()) kill(one.id, SIGKILL), ++count;
  return count;
}

} // namespace

void end_all(int group) {
  if (group > 0) kill(-group, SIGKILL); // at one blow: what forks at this moment is hit too
  for (;;) {
    const int killed = kill_children();
    int got = 0;
    while ((got = waitpid(-1, nullptr, WNOHANG)) > 0) {
    }
    if (got < 0 && errno == ECHILD) return;
    if (killed > 0) waitpid(-1, nullptr, 0);
  }
}

std::int64_t memory_of_the_machine() {
  std::int64_t bytes = sysconf(_SC_PHYS_PAGES) * page();
  for (const char* limit : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"})
    if (const std::int64_t container = std::atoll(Text(limit).bytes.data()); container > 0) bytes = std::min(bytes, container);
  return bytes;
}

std::int64_t memory_available() {
  const std::int64_t kibibytes = Text("/proc/meminfo").after("MemAvailable:");
  return kibibytes < 0 ? -1 : kibibytes * 1024;
}

std::int64_t resident(int process) {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/%d/statm", process);
  long long size = 0, pages = 0;
  return std::sscanf(Text(path).bytes.data(), "%lld %lld", &size, &pages) == 2 ? pages * page() : 0;
}

std::int64_t resident_below(std::int64_t limit) {
  const std::vector<Process> below = descendants();
  std::int64_t sum = 0, shared_once = 0;
  for (const Process& one : below) sum += one.resident;
  if (sum <= limit) return sum;
  for (const Process& one : below) { // slower: the system walks through all pages
    char path[64];
    std::snprintf(path, sizeof path, "/proc/%d/smaps_rollup", one.id);
    const std::int64_t kibibytes = Text(path).after("\nPss:");
    shared_once += kibibytes < 0 ? one.resident : kibibytes * 1024;
  }
  return shared_once;
}

std::int64_t bytes_in(const char* folder) {
  std::int64_t sum = 0;
  int files = 0;
  std::error_code trouble;
  for (std::filesystem::recursive_directory_iterator at(folder, trouble), end; !trouble && at != end && ++files <= 1000;
       at.increment(trouble)) {
    struct stat file {};
    if (lstat(at->path().c_str(), &file) == 0) sum += std::int64_t{512} * file.st_blocks;
  }
  return sum;
}

} // namespace kdacheck::plugin
