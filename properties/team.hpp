#pragma once
// Threads that share out one piece of work.

#include <cstddef>
#include <functional>

namespace kdacheck {

/// Threads for a plan that asks for so many; 0: one per core.
int thread_count(int asked);

/// Calls work() on thread_count(threads) threads of one OpenMP thread each (the cores are busy with the others' work), and returns
/// when all have ended. The first exception among them is thrown then; work() itself must see that the others end early.
void as_a_team(int threads, const std::function<void()>& work);

/// Calls work(i) for every i < count, each on whatever thread is free, in rising order of their beginnings. After an exception none
/// begins any more.
void share_out(std::size_t count, int threads, const std::function<void(std::size_t)>& work);

} // namespace kdacheck
