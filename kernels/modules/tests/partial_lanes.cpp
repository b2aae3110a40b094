// Registers loaded and stored in part, at every width: nothing beyond is read or written.

#include "../partial_lanes.hpp"

#include <catch2/catch.hpp>
#include <vector>

using namespace kdacheck;
using namespace kdacheck::modules;

TEST_CASE("a part of a register is as many numbers as are there, and zeros") {
  for (std::int64_t rest = 1; rest <= cpu::lane_count + 3; ++rest) {
    const std::int64_t width = std::min(rest, cpu::lane_count);
    std::vector<float> from(static_cast<std::size_t>(width)), to(static_cast<std::size_t>(width) + 20, -7.0f);
    for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<float>(i + 1);
    const cpu::Lanes lanes = load_part(from.data(), rest);
    for (std::int64_t i = 0; i < cpu::lane_count; ++i) {
      INFO("lane " << i << " of " << width);
      CHECK(lanes[static_cast<int>(i)] == (i < width ? static_cast<float>(i + 1) : 0.0f));
    }
    store_part(to.data(), lanes, rest);
    for (std::size_t i = 0; i < to.size(); ++i) {
      INFO("place " << i << " of " << width);
      CHECK(to[i] == (i < from.size() ? from[i] : -7.0f));
    }
  }
}
