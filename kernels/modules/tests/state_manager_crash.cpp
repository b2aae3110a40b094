// A program that is killed while it saves leaves its last good checkpoint behind.

#include "state_tokens.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <csignal>
#include <omp.h>
#include <sys/wait.h>

using namespace kdacheck;
using namespace kdacheck::modules;

namespace {

const StateShape shape{2, 4, 32, 32};

/// Steps, saves and tells each step that is on disk, until it is killed. Written behind, that is the step before the last.
[[noreturn]] void save_for_ever(const std::filesystem::path& folder, int tell, bool behind) {
  omp_set_num_threads(1); // the threads of the parent are not in this process
  StateManager manager({.largest = shape, .checkpoint_interval = 1, .checkpoints_kept = 2, .folder = folder, .write_behind = behind});
  manager.load_latest();
  for (;;) {
    const std::int64_t before = manager.step();
    manager.update(random_tokens(shape, 2, 1, static_cast<std::uint64_t>(before)).view());
    if (behind && before == 0) manager.finish_writing();
    const std::int64_t step = behind ? std::max<std::int64_t>(before, 1) : manager.step();
    if (::write(tell, &step, sizeof step) != sizeof step) ::_exit(1);
  }
}

} // namespace

TEST_CASE("killed at any moment of saving, the latest checkpoint told of is there, whole, and right") {
  const bool behind = GENERATE(false, true);
  omp_set_num_threads(1);
  const ScratchFolder folder;
  std::mt19937_64 bits(99);
  std::int64_t last = 0, killed_between = 0;
  StateManager truth({.largest = shape, .checkpoint_interval = 0, .checkpoints_kept = 1, .folder = {}});
  for (int round = 0; round < 40 || (last < 40 && round < 2000); ++round) { // on a loaded machine a kill may come before any progress
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      ::close(ends[0]);
      save_for_ever(folder.path, ends[1], behind);
    }
    ::close(ends[1]);
    std::int64_t step = 0, told = last;
    REQUIRE(::read(ends[0], &step, sizeof step) == sizeof step); // it is saving now
    told = step;
    ::usleep(static_cast<useconds_t>(bits() % 6000));
    ::kill(child, SIGKILL);
    while (::read(ends[0], &step, sizeof step) == sizeof step) told = step;
    ::close(ends[0]);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
    for (const auto& entry : std::filesystem::directory_iterator(folder.path))
      killed_between += entry.path().string().find(".partial-") != std::string::npos;

    StateManager reader({.largest = shape, .checkpoint_interval = 0, .checkpoints_kept = 2, .folder = folder.path});
    REQUIRE(reader.load_latest());
    REQUIRE(reader.step() >= told);
    REQUIRE(reader.step() >= last + (behind ? 0 : 1)); // a checkpoint that was being written behind may be lost, no earlier one
    while (truth.step() < reader.step()) truth.update(random_tokens(shape, 2, 1, static_cast<std::uint64_t>(truth.step())).view());
    REQUIRE(std::ranges::equal(reader.states(), truth.states()));
    last = reader.step();
  }
  CHECK(last >= 40);
  CHECK(killed_between > 0); // else no kill struck while a file was being written
}
