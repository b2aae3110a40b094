// What the laws of properties/modules do not see: the default pattern, memory as it is really allocated against full
// attention, calls that are refused with the state as it was.

#include "../hybrid.hpp"

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <malloc.h>
#include <new>

using namespace kdacheck;
using namespace kdacheck::modules;
using Catch::Matchers::Contains;

namespace {

std::atomic<std::int64_t> requested = 0; ///< bytes that were asked of operator new and not given back

HybridStack stack_of(std::vector<Mixer> pattern) {
  return {.pattern = std::move(pattern),
          .kda = {.D = 32, .H = 2, .HV = 2, .K = 16, .V = 16, .gate_rank = 8, .output_gate_rank = 8},
          .mla = {.D = 32, .H = 2, .K = 16, .V = 16, .K_shared = 8, .rank = 24}};
}

std::vector<float> wave(std::int64_t count) {
  std::vector<float> x(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::sin(0.7f * static_cast<float>(i * i % 101));
  return x;
}

const Kernel& kernel() { return *std::ranges::find(built_in_kernels(), std::string("cpu.chunk64.fp32"), &Kernel::name); }

/// The state behind a prompt of T tokens in a batch of B.
HybridState prefilled(const HybridStack& stack, std::int64_t B, std::int64_t T) {
  const std::vector<float> x = wave(B * T * stack.D());
  HybridState state;
  hybrid(stack, initial_parameters(stack, 7), kernel(), {.B = B, .T = T, .x = x}, state);
  return state;
}

} // namespace

void* operator new(std::size_t size) {
  if (void* memory = std::malloc(size)) {
    requested += static_cast<std::int64_t>(malloc_usable_size(memory));
    return memory;
  }
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept {
  if (memory) requested -= static_cast<std::int64_t>(malloc_usable_size(memory));
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept { operator delete(memory); }

TEST_CASE("the default pattern is three KDA layers and one MLA layer, any other ratio can be asked for") {
  using enum Mixer;
  CHECK(hybrid_pattern(8) == std::vector{kda, kda, kda, mla, kda, kda, kda, mla});
  CHECK(HybridStack{}.pattern == std::vector{kda, kda, kda, mla});
  CHECK(hybrid_pattern(3, 1) == std::vector{kda, mla, kda});
  CHECK(hybrid_pattern(2, 0) == std::vector{mla, mla});
  CHECK_THROWS_WITH(hybrid_pattern(2, -1), Contains("must not be negative"));
}

TEST_CASE("each layer of a stack has its own initial parameters, drawn from the seed and its place") {
  const HybridStack stack = stack_of(hybrid_pattern(12));
  const HybridParameters p = initial_parameters(stack, 7), other = initial_parameters(stack, 8);
  std::vector<std::vector<float>> projections;
  for (const HybridParameters* drawn : {&p, &other})
    for (const HybridBlock& block : *drawn) {
      projections.push_back(block.mla.q_proj.empty() ? block.kda.q_proj : block.mla.q_proj);
      CHECK(std::ranges::all_of(block.norm, [](float w) { return w == 1.0f; }));
    }
  std::ranges::sort(projections);
  CHECK(std::ranges::adjacent_find(projections) == projections.end());
  const HybridStack shorter = stack_of(hybrid_pattern(5));
  CHECK(initial_parameters(shorter, 7)[4].kda.o_proj == p[4].kda.o_proj); // whatever stands behind it
}

TEST_CASE("the bytes that a state reports are those that it allocates") {
  const HybridStack stack = stack_of(hybrid_pattern(8));
  std::int64_t reported = 0, with = 0;
  {
    const HybridState state = prefilled(stack, 2, 200);
    reported = state.bytes(), with = requested;
  }
  const std::int64_t freed = with - requested; // threads' own buffers stay
  CHECK(reported > 0);
  CHECK(freed >= reported);
  // Besides its numbers the heap holds lists of layers and rows, and the allocator's rounding of each of 8 x 4 blocks.
  CHECK(freed - reported <= 8 * static_cast<std::int64_t>(sizeof(HybridBlockState)) + 32 * 64);
}

TEST_CASE("at three to one the cache that grows with tokens is a quarter of full attention's") {
  const HybridStack three = stack_of(hybrid_pattern(8)), full = stack_of(hybrid_pattern(8, 0));
  const std::int64_t width = 4 * three.mla.cached();
  const std::int64_t constant = prefilled(three, 1, 0).bytes();
  CHECK(constant == 6 * 4 * (2 * 16 * 16 + 3 * (32 + 32 + 32))); // memory and histories of six KDA layers
  double last = 0;
  for (const std::int64_t T : {1, 16, 256, 2048}) {
    const std::int64_t hybrid_bytes = prefilled(three, 1, T).bytes(), full_bytes = prefilled(full, 1, T).bytes();
    CHECK(full_bytes == 8 * T * width);
    CHECK(hybrid_bytes - constant == full_bytes / 4);
    const double saved = 1 - static_cast<double>(hybrid_bytes) / static_cast<double>(full_bytes);
    CHECK((T == 1 || saved > last)); // towards 75 %, never beyond
    CHECK(saved < 0.75);
    last = saved;
  }
  CHECK(last > 0.75 - static_cast<double>(constant + 1) / static_cast<double>(8 * 2048 * width));
}

TEST_CASE("a refused call leaves the state as it was") {
  const HybridStack stack = stack_of({Mixer::mla, Mixer::kda, Mixer::mla, Mixer::kda});
  HybridParameters p = initial_parameters(stack, 7);
  CHECK(p[0].mla.q_proj != p[2].mla.q_proj); // each layer has its own
  CHECK(p[1].kda.q_proj != p[3].kda.q_proj);
  const std::vector<float> x = wave(5 * stack.D());
  HybridState state;
  hybrid(stack, p, kernel(), {.B = 1, .T = 5, .x = x}, state);
  const HybridState before = state;
  p[2].mla.o_proj[0] = std::numeric_limits<float>::infinity(); // met behind both MLA layers, by the last KDA layer
  CHECK_THROWS_WITH(hybrid(stack, p, kernel(), {.B = 1, .T = 5, .x = x}, state), Contains("all must be finite"));
  for (const std::size_t l : {0u, 2u}) CHECK(state.layers[l].mla.rows == before.layers[l].mla.rows);
  for (const std::size_t l : {1u, 3u}) {
    CHECK(state.layers[l].kda.memory == before.layers[l].kda.memory);
    CHECK(state.layers[l].kda.q_conv == before.layers[l].kda.q_conv);
  }
  HybridState fresh;
  CHECK_THROWS_WITH(hybrid(stack, p, kernel(), {.B = 1, .T = 5, .x = x}, fresh), Contains("all must be finite"));
  CHECK(fresh.layers.empty());
  CHECK_THROWS_WITH(hybrid(stack, p, kernel(), {.B = 1, .T = 4, .x = x}, state), Contains("[B,T,D] needs 128"));
  p.pop_back();
  CHECK_THROWS_WITH(hybrid(stack, p, kernel(), {.B = 1, .T = 5, .x = x}, state), Contains("parameters of 3 layers, the pattern has 4"));
  HybridStack odd = stack;
  odd.mla.D = 31;
  CHECK_THROWS_WITH(initial_parameters(odd, 1), Contains("D is 32 in KDA layers and 31 in MLA layers"));
}
