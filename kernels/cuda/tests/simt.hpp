#pragma once
// A streaming multiprocessor on the host, for tests: the functions of warp_device.cuh with lanes as fibers of one thread.
// Lanes of a warp meet at every collective instruction, so that the kernels' index arithmetic, barriers and races with
// uninitialised memory can be tested without a GPU. Products are summed in double: accuracy is roughly, layout exactly
// the machine's. Included by warp.cuh when no CUDA compiler is at work.

#include "../../../reference/number_format.hpp"
#include "nvcc_words.hpp"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <ucontext.h>
#include <vector>

namespace kdacheck::cuda {

namespace simt {

struct Warp {
  int arrived = 0;
  unsigned generation = 0;
  std::uint32_t in[32][16] = {}, out[32][4] = {};
};

struct Lane {
  ucontext_t context;
  std::vector<unsigned char> stack;
  bool finished = false;
};

/// One cluster of blocks at a time; `threads` counts all of its lanes.
struct Block {
  unsigned index = 0, threads = 0, threads_each = 0, current = 0;
  std::vector<unsigned> arrived, generation; ///< of sync_block, by block; the last entry is the cluster's
  std::vector<std::vector<unsigned char>> shared;
  std::vector<std::unique_ptr<Lane>> lanes;
  std::vector<Warp> warps;
  std::function<void()> body;
  ucontext_t scheduler;
};
inline Block* block = nullptr;

inline void resume(unsigned lane) {
  const unsigned from = block->current;
  if (lane == from) return;
  block->current = lane;
  swapcontext(&block->lanes[from]->context, &block->lanes[lane]->context);
}

/// Next unfinished lane of the warp; if there is none but this one, of the block.
inline void yield_in_warp() {
  const unsigned warp = block->current / 32;
  for (unsigned step = 1; step < 32; ++step) {
    const unsigned lane = warp * 32 + (block->current + step) % 32;
    if (!block->lanes[lane]->finished) return resume(lane);
  }
}
inline void yield_in_block() {
  for (unsigned step = 1; step <= block->threads; ++step) {
    const unsigned lane = (block->current + step) % block->threads;
    if (!block->lanes[lane]->finished) return resume(lane);
  }
}

/// All 32 lanes deposit `words` and meet; the last to come computes all results.
template <class Compute> void collective(Compute compute) {
  Warp& warp = block->warps[block->current / 32];
  const unsigned generation = warp.generation;
  if (++warp.arrived == 32) {
    compute(warp);
    warp.arrived = 0;
    ++warp.generation;
  } else {
    unsigned turns = 0;
    while (warp.generation == generation) ++turns % 64 == 0 ? yield_in_block() : yield_in_warp();
  }
}
inline std::uint32_t (&in())[16] { return block->warps[block->current / 32].in[block->current % 32]; }
inline std::uint32_t (&out())[4] { return block->warps[block->current / 32].out[block->current % 32]; }

/// Rank in the cluster of the block that the current lane belongs to.
inline unsigned rank() { return block->current / block->threads_each; }

/// A remote address carries the block's rank plus one in its top byte.
inline unsigned char* at(Address address, std::size_t bytes) {
  const unsigned owner = address >> 24 ? (address >> 24) - 1 : rank();
  const Address offset = address & 0xffffffu;
  auto& shared = block->shared.at(owner);
  if (offset % (bytes < 16 ? bytes : 16) != 0 || offset + bytes > shared.size()) std::abort(); // misaligned or out of bounds
  return shared.data() + offset;
}
template <class T> T read(Address address) {
  T x;
  std::memcpy(&x, at(address, sizeof x), sizeof x);
  return x;
}
template <class T> void write(Address address, const T& x) { std::memcpy(at(address, sizeof x), &x, sizeof x); }

inline void entry() {
  block->body();
  block->lanes[block->current]->finished = true;
  yield_in_block();
  setcontext(&block->scheduler); // the last lane
}

/// Runs `body` as `blocks` blocks of a grid from `index` on, in one cluster. Shared memory starts as NaN.
inline void run_cluster(unsigned index, unsigned blocks, unsigned threads_each, std::size_t shared_bytes, std::function<void()> body) {
  Block now;
  block = &now;
  now.index = index;
  now.threads_each = threads_each;
  const unsigned threads = now.threads = blocks * threads_each;
  now.shared.assign(blocks, std::vector<unsigned char>(shared_bytes, 0xff));
  now.arrived.assign(blocks + 1, 0);
  now.generation.assign(blocks + 1, 0);
  now.warps.resize(threads / 32);
  now.body = std::move(body);
  for (unsigned lane = 0; lane < threads; ++lane) {
    now.lanes.push_back(std::make_unique<Lane>());
    Lane& made = *now.lanes.back();
    made.stack.resize(65536);
    getcontext(&made.context);
    made.context.uc_stack.ss_sp = made.stack.data();
    made.context.uc_stack.ss_size = made.stack.size();
    made.context.uc_link = nullptr;
    makecontext(&made.context, entry, 0);
  }
  swapcontext(&now.scheduler, &now.lanes[0]->context);
  block = nullptr;
}

} // namespace simt

inline unsigned thread_index() { return simt::block->current % simt::block->threads_each; }
inline unsigned block_index() { return simt::block->index + simt::rank(); }
inline unsigned cluster_rank() { return simt::rank(); }
struct BlockPlace {
  unsigned x, y, z;
};
namespace simt {
inline unsigned grid_x = 1, grid_y = 1; ///< of a grid of three dimensions, whose blocks run_cluster numbers through
}
inline BlockPlace block_place() {
  const unsigned index = block_index();
  return {index % simt::grid_x, index / simt::grid_x % simt::grid_y, index / simt::grid_x / simt::grid_y};
}
inline Address shared_base() { return 0; }
inline unsigned char* dynamic_shared() { return simt::block->shared[simt::rank()].data(); }
inline Address shared_address(const void* pointer) {
  return static_cast<Address>(static_cast<const unsigned char*>(pointer) - dynamic_shared());
}
inline void sync_warp() {
  simt::collective([](simt::Warp&) {});
}
namespace simt {
inline void meet(std::size_t where, unsigned all) {
  const unsigned generation = block->generation[where];
  if (++block->arrived[where] == all) {
    block->arrived[where] = 0;
    ++block->generation[where];
  }
  while (block->generation[where] == generation) yield_in_block();
}
} // namespace simt
inline void sync_block() { simt::meet(simt::rank(), simt::block->threads_each); }
inline void sync_cluster() { simt::meet(simt::block->shared.size(), simt::block->threads); }
inline float shuffle_from(float x, int source) {
  simt::in()[0] = std::bit_cast<std::uint32_t>(x);
  simt::in()[1] = static_cast<std::uint32_t>(source);
  simt::collective([](simt::Warp& warp) {
    for (int lane = 0; lane < 32; ++lane) warp.out[lane][0] = warp.in[warp.in[lane][1] % 32][0];
  });
  return std::bit_cast<float>(simt::out()[0]);
}
inline float shuffle_xor(float x, int mask) { return shuffle_from(x, static_cast<int>(thread_index() % 32) ^ mask); }
inline float shuffle(float x, int lane) { return shuffle_from(x, lane); }

inline bool any_lane(bool x) {
  simt::in()[0] = x;
  simt::collective([](simt::Warp& warp) {
    std::uint32_t any = 0;
    for (const auto& words : warp.in) any |= words[0];
    for (auto& words : warp.out) words[0] = any;
  });
  return simt::out()[0] != 0;
}

inline void store_shared(Address at, std::uint32_t x) { simt::write(at, x); }
inline void store_shared(Address at, float x) { simt::write(at, x); }
inline void store_shared(Address at, double x) { simt::write(at, x); }
inline double load_shared_double(Address at) { return simt::read<double>(at); }
template <int count> void store_global_words(void* to, const std::uint32_t (&x)[count]) { std::memcpy(to, x, sizeof x); }
inline void store_shared(Address at, Pair x) { simt::write(at, x); }
inline void store_shared(Address at, const std::uint32_t (&x)[4]) { std::memcpy(simt::at(at, 16), x, 16); }
inline std::uint32_t load_shared_word(Address at) { return simt::read<std::uint32_t>(at); }
inline float load_shared_float(Address at) { return simt::read<float>(at); }
inline Pair load_shared_pair(Address at) { return simt::read<Pair>(at); }
inline void load_shared_quad(float (&x)[4], Address at) { std::memcpy(x, simt::at(at, 16), 16); }
inline void load_shared_quad(std::uint32_t (&x)[4], Address at) { std::memcpy(x, simt::at(at, 16), 16); }
inline void store_global(void* to, const std::uint32_t (&x)[4]) { std::memcpy(to, x, 16); }
inline void store_global_at_once(void* to, const std::uint32_t (&x)[4]) { store_global(to, x); }

inline void load_global(std::uint32_t (&x)[4], const void* from) { std::memcpy(x, from, 16); }
inline void load_global_fresh(float (&x)[4], const float* from) { std::memcpy(x, from, 16); }
inline void store_global_passing(void* to, const std::uint32_t (&x)[4]) { store_global(to, x); }
inline void load_global_passing(std::uint32_t (&x)[4], const void* from) { load_global(x, from); }

namespace simt {
/// Element (row, column) of matrix m, whose rows the lanes 8m .. 8m+7 address.
inline std::uint16_t& element(Warp& warp, int m, int row, int column) {
  return *reinterpret_cast<std::uint16_t*>(at(warp.in[8 * m + row][0], 16) + 2 * column);
}
template <bool transposed> void move_in(std::uint32_t (&x)[4], Address row) {
  in()[0] = row;
  collective([](Warp& warp) {
    for (int lane = 0; lane < 32; ++lane)
      for (int m = 0; m < 4; ++m) {
        const int a = lane / 4, b = 2 * (lane % 4);
        const std::uint32_t low = transposed ? element(warp, m, b, a) : element(warp, m, a, b);
        const std::uint32_t high = transposed ? element(warp, m, b + 1, a) : element(warp, m, a, b + 1);
        warp.out[lane][m] = low | high << 16;
      }
  });
  std::memcpy(x, out(), 16);
}
inline float bf16(std::uint32_t word, int half) { return std::bit_cast<float>(half == 0 ? word << 16 : word & 0xffff0000u); }
} // namespace simt

inline void load_matrices(std::uint32_t (&x)[4], Address row) { simt::move_in<false>(x, row); }
inline void load_matrices_transposed(std::uint32_t (&x)[4], Address row) { simt::move_in<true>(x, row); }
inline void store_matrices_transposed(Address row, const std::uint32_t (&x)[4]) {
  simt::in()[0] = row;
  std::memcpy(simt::in() + 1, x, 16);
  simt::collective([](simt::Warp& warp) {
    for (int lane = 0; lane < 32; ++lane)
      for (int m = 0; m < 4; ++m)
        for (int half = 0; half < 2; ++half)
          simt::element(warp, m, 2 * (lane % 4) + half, lane / 4) = static_cast<std::uint16_t>(warp.in[lane][1 + m] >> (16 * half));
  });
}

inline std::uint32_t transpose_matrix(std::uint32_t word) {
  simt::in()[0] = word;
  simt::collective([](simt::Warp& warp) {
    const auto element = [&](int row, int column) { return warp.in[4 * row + column / 2][0] >> (16 * (column % 2)) & 0xffffu; };
    for (int lane = 0; lane < 32; ++lane)
      warp.out[lane][0] = element(2 * (lane % 4), lane / 4) | element(2 * (lane % 4) + 1, lane / 4) << 16;
  });
  return simt::out()[0];
}

namespace simt {
template <bool fp16> float half_of(std::uint32_t word, int half) {
  if constexpr (fp16)
    return static_cast<float>(std::bit_cast<_Float16>(static_cast<std::uint16_t>(word >> (16 * half))));
  else
    return bf16(word, half);
}
template <bool fp16> void multiply_halves(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  std::memcpy(in(), c, 16);
  std::memcpy(in() + 4, a, 16);
  in()[8] = b0;
  in()[9] = b1;
  collective([](Warp& warp) {
    for (int lane = 0; lane < 32; ++lane)
      for (int e = 0; e < 4; ++e) {
        const int row = lane / 4 + 8 * (e / 2), column = 2 * (lane % 4) + e % 2;
        double sum = std::bit_cast<float>(warp.in[lane][e]);
        for (int inner = 0; inner < 16; ++inner) {
          const int a_lane = row % 8 * 4 + inner % 8 / 2, b_lane = column * 4 + inner % 8 / 2;
          const float x = half_of<fp16>(warp.in[a_lane][4 + row / 8 + 2 * (inner / 8)], inner % 2);
          const float y = half_of<fp16>(warp.in[b_lane][8 + inner / 8], inner % 2);
          sum += static_cast<double>(x) * y;
        }
        warp.out[lane][e] = std::bit_cast<std::uint32_t>(static_cast<float>(sum));
      }
  });
  std::memcpy(c, out(), 16);
}
} // namespace simt
inline void multiply_add(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  simt::multiply_halves<false>(c, a, b0, b1);
}
inline void multiply_add_fp16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  simt::multiply_halves<true>(c, a, b0, b1);
}
/// What does not fit 11 bits is cut off, as the machine does.
inline void multiply_add_tf32(float (&c)[4], const float (&a)[4], float b0, float b1) {
  std::memcpy(simt::in(), c, 16);
  std::memcpy(simt::in() + 4, a, 16);
  simt::in()[8] = std::bit_cast<std::uint32_t>(b0);
  simt::in()[9] = std::bit_cast<std::uint32_t>(b1);
  simt::collective([](simt::Warp& warp) {
    const auto number = [](std::uint32_t bits) { return std::bit_cast<float>(bits & 0xffffe000u); };
    for (int lane = 0; lane < 32; ++lane)
      for (int e = 0; e < 4; ++e) {
        const int row = lane / 4 + 8 * (e / 2), column = 2 * (lane % 4) + e % 2;
        double sum = std::bit_cast<float>(warp.in[lane][e]);
        for (int inner = 0; inner < 8; ++inner)
          sum += static_cast<double>(number(warp.in[row % 8 * 4 + inner % 4][4 + row / 8 + 2 * (inner / 4)])) *
                 number(warp.in[column * 4 + inner % 4][8 + inner / 4]);
        warp.out[lane][e] = std::bit_cast<std::uint32_t>(static_cast<float>(sum));
      }
  });
  std::memcpy(c, simt::out(), 16);
}
inline std::uint32_t pack_bf16(float x, float y) {
  return std::bit_cast<std::uint32_t>(round_bf16(x)) >> 16 | (std::bit_cast<std::uint32_t>(round_bf16(y)) & 0xffff0000u);
}
inline std::uint32_t pack_fp16(float x, float y) {
  return static_cast<std::uint32_t>(std::bit_cast<std::uint16_t>(static_cast<_Float16>(x))) |
         static_cast<std::uint32_t>(std::bit_cast<std::uint16_t>(static_cast<_Float16>(y))) << 16;
}
inline Pair unpack_bf16(std::uint32_t word) { return {simt::bf16(word, 0), simt::bf16(word, 1)}; }
inline Pair unpack_fp16(std::uint32_t word) {
  return {static_cast<float>(std::bit_cast<_Float16>(static_cast<std::uint16_t>(word))),
          static_cast<float>(std::bit_cast<_Float16>(static_cast<std::uint16_t>(word >> 16)))};
}
inline std::uint32_t float_as_bits(float x) { return std::bit_cast<std::uint32_t>(x); }
inline float bits_as_float(std::uint32_t bits) { return std::bit_cast<float>(bits); }
inline float exp2_approximate(float x) {
  const float y = std::exp2(x);
  return y < 0x1p-126f ? 0.0f : y; // NaN stays
}
inline float reciprocal_approximate(float x) { return 1.0f / x; }
inline float reciprocal_root(float x) { return 1.0f / std::sqrt(x); }

inline void copy_async(Address to, const void* from, unsigned valid) {
  unsigned char bytes[16] = {};
  std::memcpy(bytes, from, valid);
  std::memcpy(simt::at(to, 16), bytes, 16);
}
inline void copy_async_commit() {}
template <int pending> void copy_async_wait() {}

namespace simt {
struct Barrier {
  std::uint16_t expected, pending;
  std::uint32_t phase;
};
} // namespace simt
inline void barrier_init(Address barrier, unsigned arrivals) {
  simt::write(barrier, simt::Barrier{static_cast<std::uint16_t>(arrivals), static_cast<std::uint16_t>(arrivals), 0});
}
inline void barrier_arrive(Address barrier) {
  auto state = simt::read<simt::Barrier>(barrier);
  if (state.pending == 0) std::abort();
  if (--state.pending == 0) {
    state.pending = state.expected;
    ++state.phase;
  }
  simt::write(barrier, state);
}
inline void barrier_wait(Address barrier, unsigned parity) {
  while ((simt::read<simt::Barrier>(barrier).phase & 1) == parity) simt::yield_in_block();
}

inline bool barrier_test(Address barrier, unsigned parity) {
  simt::yield_in_block();
  return (simt::read<simt::Barrier>(barrier).phase & 1) != parity;
}
inline void word_wait(Address word, std::uint32_t value) {
  while (simt::read<std::uint32_t>(word) != value) simt::yield_in_block();
}
inline void word_set(Address word, std::uint32_t value) { simt::write(word, value); }
inline unsigned renewed(unsigned x) { return x; }
inline void flag_set(std::uint32_t* flag) { *flag = 1; }
inline void flag_wait(const std::uint32_t* flag) {
  if (*flag == 0) std::abort(); // clusters run one after the other
}
inline std::uint32_t take_ticket(void* count) { return (*static_cast<std::uint32_t*>(count))++; }
inline std::uint32_t load_remote_word(Address at) { return simt::read<std::uint32_t>(at); }
inline Address remote_address(Address local, unsigned rank) { return local | (rank + 1) << 24; }
inline void barrier_arrive_remote(Address barrier) { barrier_arrive(barrier); }
inline void barrier_expect_remote(Address barrier, unsigned) { barrier_arrive(barrier); } // the copy follows before any lane runs
inline void copy_remote(Address to, Address from, unsigned bytes, Address) {
  std::vector<unsigned char> moved(bytes);
  std::memcpy(moved.data(), simt::at(from, bytes), bytes);
  std::memcpy(simt::at(to, bytes), moved.data(), bytes);
}
inline void barrier_expect(Address barrier, unsigned) { barrier_arrive(barrier); }
inline void copy_bulk(Address to, const void* from, unsigned bytes, Address) {
  for (unsigned place = 0; place < bytes; place += 16)
    std::memcpy(simt::at(to + place, 16), static_cast<const unsigned char*>(from) + place, 16);
}
inline void fence_async() {}

} // namespace kdacheck::cuda
