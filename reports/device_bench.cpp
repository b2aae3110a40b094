#include "commands.hpp"

#include "../reference/atomic_file.hpp"

#include <fmt/format.h>

#include <spawn.h>
#include <sys/wait.h>

#include <cerrno>
#include <cstdio>
#include <stdexcept>

#include "../reference/named_file.hpp"

extern char** environ;

// Programs of kernels/cuda; the first is there where this build has a CUDA compiler.
#ifndef KDACHECK_CUDA_CHECK
#define KDACHECK_CUDA_CHECK ""
#endif

namespace kdacheck {
namespace {

/// Runs a program with this one's streams; its exit status.
int status_of(std::vector<std::string> words) {
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_t child = 0;
  if (posix_spawn(&child, arguments[0], nullptr, nullptr, arguments.data(), environ) != 0)
    throw std::runtime_error(words[0] + " cannot be started");
  int status = 0;
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR) throw std::runtime_error("lost " + words[0]);
  if (!WIFEXITED(status)) throw std::runtime_error(words[0] + " was ended by a signal");
  return WEXITSTATUS(status);
}

} // namespace

int bench_device_command(const BenchArguments& arguments) {
  demand_room_for_folder(arguments.out);
  const std::string program = KDACHECK_CUDA_CHECK, to = arguments.out + "/cuda.json";
  demand_room_for_file(to);
  int status = 5;
  if (!program.empty()) {
    make_folder(arguments.out);
    std::vector<std::string> words{program, "--no-check", "--json", to};
    if (!arguments.peers.empty()) words.insert(words.end(), {"--peers", arguments.peers});
    status = status_of(words);
  }
  if (status != 5) return status;
  std::fflush(stdout);
  status_of({KDACHECK_CUDA_EVIDENCE, KDACHECK_SOURCE_DIR}); // what the last run on a GPU showed, and whether it still holds
  return 5;
}

} // namespace kdacheck
