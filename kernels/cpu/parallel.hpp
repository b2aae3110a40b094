#pragma once
// Independent tasks over the cores, each worker with its own part of the workspace. What a task computes never depends
// on which worker runs it.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <omp.h>
#include <span>

namespace kdacheck::cpu {

/// Workers that a call made here would use: one inside somebody else's parallel region.
inline std::int64_t worker_count(std::int64_t tasks) {
  const std::int64_t threads = omp_in_parallel() ? 1 : omp_get_max_threads();
  return std::max<std::int64_t>(1, std::min(threads, tasks));
}

/// Calls task(index, memory) for index 0 .. tasks-1. `slice` bytes of the workspace go to each worker; `operations` is
/// the work in multiply-adds: little work stays on this thread.
template <class Task>
void for_each_task(std::int64_t tasks, std::span<std::byte> workspace, std::size_t slice, double operations, Task task) {
  constexpr double worth_a_thread = 2e6; // multiply-adds; waking a thread costs some microseconds
  std::int64_t workers = worker_count(tasks);
  if (slice > 0) workers = std::min(workers, static_cast<std::int64_t>(workspace.size() / slice));
  if (operations < worth_a_thread || workers <= 1) {
    for (std::int64_t index = 0; index < tasks; ++index) task(index, workspace.data());
    return;
  }
#pragma omp parallel for schedule(dynamic) num_threads(static_cast<int>(workers))
  for (std::int64_t index = 0; index < tasks; ++index)
    task(index, workspace.data() + static_cast<std::size_t>(omp_get_thread_num()) * slice);
}

} // namespace kdacheck::cpu
