#include "team.hpp"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace kdacheck {

int thread_count(int asked) { return asked > 0 ? asked : static_cast<int>(std::max(1u, std::thread::hardware_concurrency())); }

void as_a_team(int threads, const std::function<void()>& work) {
  std::mutex access;
  std::exception_ptr trouble;
  {
    std::vector<std::jthread> team;
    for (int i = 0; i < thread_count(threads); ++i)
      team.emplace_back([&] {
        omp_set_num_threads(1);
        try {
          work();
        } catch (...) {
          const std::lock_guard lock(access);
          if (!trouble) trouble = std::current_exception();
        }
      });
  }
  if (trouble) std::rethrow_exception(trouble);
}

void share_out(std::size_t count, int threads, const std::function<void(std::size_t)>& work) {
  std::atomic<std::size_t> next{0};
  as_a_team(threads, [&] {
    for (std::size_t i = next++; i < count; i = next++) try {
        work(i);
      } catch (...) {
        next = count;
        throw;
      }
  });
}

} // namespace kdacheck
