// Decode: 1 to 8 tokens a sequence, fp32 state read and written once, in place.
//
// A block owns some value columns of one head's state: every row of a thread is loaded before anything else is, so that all
// its 16-byte loads are in flight together. Meanwhile one warp a token prepares alpha, k, q, beta and q.k in shared memory.
// Per token one pass over the registers gives
//   p = S^T (alpha k),  r = S^T (alpha q),   then  u = beta (v - p),  S = alpha S + k u^T,  o = r + (q.k) u   (scale in q)
// with one barrier. Bytes: 8 K V per sequence and head; arithmetic hides under them. Where heads are many the state's part lies in shared
// memory and is read twice there; where they are few it lies in registers.
//
// Story (K = V = 128, B 1 / 64 / 256, H 32; ms and share of the copy bandwidth):
// 1. 32 columns, 128 threads a block. Predicted: limited by copy bandwidth from 64 sequences on. Measured: 0.0097, 0.133
//    (84 %), 0.600 (74 %): pieces of 128 bytes of a row reach the memory from four blocks.
// 2. 128 columns, 256 threads where there are enough blocks: 64 KB in one piece. Predicted: 0.90 of the copy bandwidth. Measured:
//    0.0099, 0.128 (87 %), 0.49 to 0.52 (85 to 90 %). 106 registers, no spills.
// 3. Everything of a token read before the slot is known, beta and v with the rest: two waits for memory fewer one after the other.
//    Predicted 0.0085 for one sequence. Measured 0.0080, 0.107, 0.404. 128 registers, no spills.
// 4. 16 columns a block for few heads, K <= 128: twice the blocks, half the loads of a thread. Predicted 0.0076 for one sequence.
//    Measured 0.0074 to 0.0081 on an H200, where an empty kernel takes 0.0033, and 0.0955, 0.370 (2.84, 2.93 TB/s; a copy 4.1).
// 5. Tried and dropped for many heads: one block a multiprocessor, whole states of 64 KB through a ring of three by bulk copies, two on
//    their way while one is worked on. Predicted 90 % of a copy. Measured 0.118, 0.448: one block's barriers are all waited for.
// 6. Many heads: 64 columns, 128 threads, the state by asynchronous copies in shared memory: six blocks, 192 KB on their way, at 80
//    registers, where registers held 128 KB of two blocks. Predicted 3.4 to 3.6 TB/s. Measured 0.0758, 0.272 (3.57, 3.98 TB/s); other
//    cuts (32 x 64, 128 x 128, 128 x 256) 0.077 to 0.089, 0.280 to 0.313. Four tokens 0.120 as before. From 96 heads on instead of 512:
//    0.016 for 0.024 at 8 sequences of 32 heads, 0.0118 for 0.0141 at 4. One sequence is slower so (0.0082) and stays as it was.
// 7. Few heads: a thread a channel (decode_few.cuh), one token first. The kernel of 4. has 2,732 instructions, of which a block runs each
//    once, so that it waits for code; its first warp alone works out a token, four channels a lane, with three sums over lanes one after
//    the other and two roots and quotients before the state is touched. Now 863 instructions, 60 registers, nothing spilled: every thread
//    takes one channel, norms become factors of what the state gives, sums are dealt out (7 exchanges for 24), arguments take 4 lines of
//    the constant bank instead of 8. Predicted 0.0062 to 0.0068 for one sequence of 32 heads. Measured 0.0054, an empty kernel 0.0034.
// 8. Several tokens of few heads by the same code in a loop: by the kernel of 4. they had other last bits than token by token, which a law
//    of the suite refused.

#include "../host/launch.hpp"
#include "decode.cuh"
#include "decode_few.cuh"

namespace kdacheck::cuda {
namespace {

template <int K, int columns, int threads>
__global__ void __launch_bounds__(threads, K > 128         ? 3
                                           : columns == 32 ? 5
                                                           : 2) decode(const __grid_constant__ ForwardArguments args) {
  decode_block<K, columns, threads>(args);
}

/// Blocks of a multiprocessor: as many as 192 KB hold, with 1024 threads at most.
constexpr int staged_blocks(int K, int columns, int threads) {
  const int fit = (192 << 10) / (4 * K * columns);
  return fit * threads > 1024 ? 1024 / threads : fit;
}

template <int K, int columns, int threads>
__global__ void __launch_bounds__(threads, staged_blocks(K, columns, threads))
    decode_staged(const __grid_constant__ ForwardArguments args) {
  decode_staged_block<K, columns, threads>(args);
}

template <int K, int columns> __global__ void __launch_bounds__(K) decode_few(const __grid_constant__ FewArguments args) {
  decode_few_block<K, columns>(args);
}

template <int K, int columns, int threads> cudaError_t launch(const ForwardArguments& args, std::int64_t sequences, cudaStream_t stream) {
  const std::int64_t slices = (args.V + columns - 1) / columns;
  const std::size_t shared = 2 * (threads / 32) * sizeof(Sums<columns>) + static_cast<std::size_t>(args.T) * sizeof(Token<K>);
  decode<K, columns, threads><<<static_cast<unsigned>(sequences * args.HV * slices), threads, shared, stream>>>(args);
  return cudaGetLastError();
}

template <int K, int columns, int threads>
cudaError_t launch_staged(const ForwardArguments& args, std::int64_t sequences, cudaStream_t stream) {
  constexpr std::size_t fixed = sizeof(float) * K * columns + threads / 32 * sizeof(Sums<columns>);
  // The most that any call takes, not what this one does: calls of several threads set it for one another.
  if (const cudaError_t error = cudaFuncSetAttribute(decode_staged<K, columns, threads>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                     static_cast<int>(fixed + 8 * sizeof(Token<K>)));
      error != cudaSuccess)
    return error;
  const std::int64_t slices = (args.V + columns - 1) / columns;
  decode_staged<K, columns, threads><<<static_cast<unsigned>(sequences * args.HV * slices), threads,
                                       fixed + static_cast<std::size_t>(args.T) * sizeof(Token<K>), stream>>>(args);
  return cudaGetLastError();
}

template <int K, int columns> cudaError_t launch_few(const ForwardArguments& args, std::int64_t sequences, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((args.V + columns - 1) / columns), static_cast<unsigned>(args.HV),
                  static_cast<unsigned>(sequences));
  decode_few<K, columns><<<grid, K, FewLayout<K, columns>::bytes, stream>>>(few_arguments(args));
  return cudaGetLastError();
}

/// Narrow blocks for few heads, which otherwise leave multiprocessors idle.
constexpr std::int64_t many_heads = 96;

} // namespace

cudaError_t launch_decode(const ForwardArguments& args, std::int64_t sequences, cudaStream_t stream) {
  const bool many = sequences * args.HV >= many_heads;
  if (args.K <= 64) return many ? launch_staged<64, 64, 128>(args, sequences, stream) : launch_few<64, 16>(args, sequences, stream);
  if (args.K <= 128) return many ? launch_staged<128, 64, 128>(args, sequences, stream) : launch_few<128, 16>(args, sequences, stream);
  return launch<256, 32, 128>(args, sequences, stream);
}

} // namespace kdacheck::cuda
