#include "../team.hpp"

#include <atomic>
#include <catch2/catch.hpp>
#include <omp.h>
#include <set>
#include <stdexcept>
#include <vector>

using namespace kdacheck;

TEST_CASE("every index is shared out once, to any number of threads") {
  for (const int threads : {0, 1, 3, 16}) {
    std::vector<std::atomic<int>> calls(1000);
    share_out(calls.size(), threads, [&](std::size_t i) { ++calls[i]; });
    for (const auto& count : calls) REQUIRE(count == 1);
  }
  share_out(0, 2, [](std::size_t) { FAIL("nothing was to do"); });
}

TEST_CASE("after an exception no work begins any more, and it reaches the caller") {
  for (const int threads : {1, 4}) {
    std::atomic<int> begun{0};
    CHECK_THROWS_WITH(share_out(100000, threads,
                                [&](std::size_t i) {
                                  ++begun;
                                  if (i == 10) throw std::runtime_error("the disk is full");
                                }),
                      "the disk is full");
    CHECK(begun < 100000);
  }
}

TEST_CASE("a member of a team has one OpenMP thread, and all members end before it returns") {
  CHECK(thread_count(3) == 3);
  CHECK(thread_count(0) >= 1);
  std::atomic<int> members{0}, threads{0};
  as_a_team(3, [&] {
    threads += omp_get_max_threads();
    ++members;
  });
  CHECK(members == 3);
  CHECK(threads == 3);
  std::atomic<int> ended{0};
  CHECK_THROWS_AS(as_a_team(4,
                            [&] {
                              if (++ended == 1) throw std::logic_error("first");
                            }),
                  std::logic_error);
  CHECK(ended == 4);
}
