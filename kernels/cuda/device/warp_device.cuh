#pragma once
// What the kernels ask of the machine, one function per instruction: shared memory by 32-bit address, 8x8 matrix moves,
// bf16 tensor-core products, asynchronous copies, barriers. Included by warp.cuh only.

#include <cstdint>

namespace kdacheck::cuda {

__device__ __forceinline__ unsigned thread_index() { return threadIdx.x; }
__device__ __forceinline__ unsigned block_index() { return blockIdx.x; }
/// Of a grid of three dimensions.
struct BlockPlace {
  unsigned x, y, z;
};
__device__ __forceinline__ BlockPlace block_place() { return {blockIdx.x, blockIdx.y, blockIdx.z}; }
__device__ __forceinline__ void sync_block() { __syncthreads(); }
__device__ __forceinline__ void sync_warp() { __syncwarp(); }
__device__ __forceinline__ float shuffle_xor(float x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }
__device__ __forceinline__ float shuffle(float x, int lane) { return __shfl_sync(0xffffffffu, x, lane); }

/// Whether any lane of the warp says so.
__device__ __forceinline__ bool any_lane(bool x) { return __any_sync(0xffffffffu, x) != 0; }

/// The same number as one that the compiler knows nothing of: what is worked out from it is worked out here, not before.
__device__ __forceinline__ unsigned renewed(unsigned x) {
  asm volatile("mov.u32 %0, %1;" : "=r"(x) : "r"(x));
  return x;
}

/// First byte of the block's dynamic shared memory.
__device__ __forceinline__ Address shared_base() {
  extern __shared__ __align__(1024) unsigned char dynamic[];
  return static_cast<Address>(__cvta_generic_to_shared(dynamic));
}

/// The same as a pointer, and the address of what a pointer into it points to.
__device__ __forceinline__ unsigned char* dynamic_shared() {
  extern __shared__ __align__(1024) unsigned char dynamic[];
  return dynamic;
}
__device__ __forceinline__ Address shared_address(const void* pointer) { return static_cast<Address>(__cvta_generic_to_shared(pointer)); }

__device__ __forceinline__ void store_shared(Address at, std::uint32_t x) { asm volatile("st.shared.b32 [%0], %1;" ::"r"(at), "r"(x)); }
__device__ __forceinline__ void store_shared(Address at, float x) { asm volatile("st.shared.f32 [%0], %1;" ::"r"(at), "f"(x)); }
__device__ __forceinline__ void store_shared(Address at, Pair x) {
  asm volatile("st.shared.v2.f32 [%0], {%1,%2};" ::"r"(at), "f"(x.x), "f"(x.y));
}
__device__ __forceinline__ void store_shared(Address at, const std::uint32_t (&x)[4]) {
  asm volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};" ::"r"(at), "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]));
}
__device__ __forceinline__ std::uint32_t load_shared_word(Address at) {
  std::uint32_t x;
  asm volatile("ld.shared.b32 %0, [%1];" : "=r"(x) : "r"(at));
  return x;
}
__device__ __forceinline__ void store_shared(Address at, double x) { asm volatile("st.shared.f64 [%0], %1;" ::"r"(at), "d"(x)); }
__device__ __forceinline__ double load_shared_double(Address at) {
  double x;
  asm volatile("ld.shared.f64 %0, [%1];" : "=d"(x) : "r"(at));
  return x;
}
__device__ __forceinline__ float load_shared_float(Address at) {
  float x;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x) : "r"(at));
  return x;
}
__device__ __forceinline__ Pair load_shared_pair(Address at) {
  Pair x;
  asm volatile("ld.shared.v2.f32 {%0,%1}, [%2];" : "=f"(x.x), "=f"(x.y) : "r"(at));
  return x;
}
__device__ __forceinline__ void load_shared_quad(float (&x)[4], Address at) {
  asm volatile("ld.shared.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(x[0]), "=f"(x[1]), "=f"(x[2]), "=f"(x[3]) : "r"(at));
}
__device__ __forceinline__ void load_shared_quad(std::uint32_t (&x)[4], Address at) {
  asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];" : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(at));
}

/// 16 bytes to global memory.
__device__ __forceinline__ void store_global(void* to, const std::uint32_t (&x)[4]) {
  *static_cast<uint4*>(to) = make_uint4(x[0], x[1], x[2], x[3]);
}

/// The same in one instruction: of a store through uint4 the compiler makes four in these kernels.
__device__ __forceinline__ void store_global_at_once(void* to, const std::uint32_t (&x)[4]) {
  asm volatile("st.global.v4.b32 [%0], {%1,%2,%3,%4};" ::"l"(__cvta_generic_to_global(to)), "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3])
               : "memory");
}

/// The same where nothing soon reads them: the cache keeps other lines rather than these.
__device__ __forceinline__ void store_global_passing(void* to, const std::uint32_t (&x)[4]) {
  __stcs(static_cast<uint4*>(to), make_uint4(x[0], x[1], x[2], x[3]));
}

/// 1, 2 or 4 words to global memory.
template <int count> __device__ __forceinline__ void store_global_words(void* to, const std::uint32_t (&x)[count]) {
  if constexpr (count == 4)
    *static_cast<uint4*>(to) = make_uint4(x[0], x[1], x[2], x[3]);
  else if constexpr (count == 2)
    *static_cast<uint2*>(to) = make_uint2(x[0], x[1]);
  else
    *static_cast<std::uint32_t*>(to) = x[0];
}

/// 16 bytes of global memory that nothing writes during this launch.
__device__ __forceinline__ void load_global(std::uint32_t (&x)[4], const void* from) {
  const uint4 words = __ldg(static_cast<const uint4*>(from));
  x[0] = words.x, x[1] = words.y, x[2] = words.z, x[3] = words.w;
}

/// The same where nothing reads them again.
__device__ __forceinline__ void load_global_passing(std::uint32_t (&x)[4], const void* from) {
  const uint4 words = __ldcs(static_cast<const uint4*>(from));
  x[0] = words.x, x[1] = words.y, x[2] = words.z, x[3] = words.w;
}

/// 16 bytes of global memory that another block has written during this launch.
__device__ __forceinline__ void load_global_fresh(float (&x)[4], const float* from) {
  const float4 words = __ldcg(reinterpret_cast<const float4*>(from));
  x[0] = words.x, x[1] = words.y, x[2] = words.z, x[3] = words.w;
}

/// Four 8x8 matrices of 16-bit elements; lane l gives the address of row l%8 of matrix l/8 (16 bytes, aligned).
/// Word m of lane l holds elements (l/4, 2(l%4)) and (l/4, 2(l%4)+1) of matrix m.
__device__ __forceinline__ void load_matrices(std::uint32_t (&x)[4], Address row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(row));
}
/// The same with every matrix transposed: elements (2(l%4), l/4) and (2(l%4)+1, l/4).
__device__ __forceinline__ void load_matrices_transposed(std::uint32_t (&x)[4], Address row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(row));
}
/// Inverse of load_matrices_transposed.
__device__ __forceinline__ void store_matrices_transposed(Address row, const std::uint32_t (&x)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(row), "r"(x[0]), "r"(x[1]), "r"(x[2]),
               "r"(x[3]));
}

/// Transposes an 8x8 matrix of 16-bit elements that a warp holds: lane l has elements (l/4, 2(l%4)) and (l/4, 2(l%4)+1).
__device__ __forceinline__ std::uint32_t transpose_matrix(std::uint32_t word) {
  std::uint32_t turned;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(turned) : "r"(word));
  return turned;
}

/// c[16x8] += a[16x16] b[16x8], bf16 operands, fp32 sums.
__device__ __forceinline__ void multiply_add(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// The same with fp16 operands.
__device__ __forceinline__ void multiply_add_fp16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
/// c[16x8] += a[16x8] b[8x8], tf32 operands in fp32 numbers, fp32 sums. Lane l has of a the elements (l/4, l%4), (l/4 + 8, l%4),
/// (l/4, l%4 + 4), (l/4 + 8, l%4 + 4), of b (l%4, l/4) and (l%4 + 4, l/4).
__device__ __forceinline__ void multiply_add_tf32(float (&c)[4], const float (&a)[4], float b0, float b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])), "r"(__float_as_uint(a[3])),
        "r"(__float_as_uint(b0)), "r"(__float_as_uint(b1)));
}
/// Two bf16 numbers rounded to nearest even, x in the low half.
__device__ __forceinline__ std::uint32_t pack_bf16(float x, float y) {
  std::uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(y), "f"(x));
  return word;
}
__device__ __forceinline__ std::uint32_t pack_fp16(float x, float y) {
  std::uint32_t word;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(y), "f"(x));
  return word;
}
__device__ __forceinline__ Pair unpack_bf16(std::uint32_t word) {
  return {__uint_as_float(word << 16), __uint_as_float(word & 0xffff0000u)};
}
__device__ __forceinline__ Pair unpack_fp16(std::uint32_t word) {
  Pair pair;
  asm("{.reg .b16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h;}" : "=f"(pair.x), "=f"(pair.y) : "r"(word));
  return pair;
}

__device__ __forceinline__ std::uint32_t float_as_bits(float x) { return __float_as_uint(x); }
__device__ __forceinline__ float bits_as_float(std::uint32_t bits) { return __uint_as_float(bits); }

/// 2^x, relative error at most 2^-22; results below 2^-126 become 0.
__device__ __forceinline__ float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
/// 1/x, at most 1 ulp off; 1/inf is 0.
__device__ __forceinline__ float reciprocal_approximate(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float reciprocal_root(float x) { return rsqrtf(x); }

/// 16 bytes from global to shared memory, of which the first `valid` are read and the rest are zero.
__device__ __forceinline__ void copy_async(Address to, const void* from, unsigned valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid) : "memory");
}
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int pending> __device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

__device__ __forceinline__ void barrier_init(Address barrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void barrier_arrive(Address barrier) {
  asm volatile("{.reg .b64 state; mbarrier.arrive.shared::cta.b64 state, [%0];}" ::"r"(barrier) : "memory");
}
/// Waits until the phase of that parity is complete.
__device__ __forceinline__ void barrier_wait(Address barrier, unsigned parity) {
  asm volatile("{\n.reg .pred done;\nagain:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@!done bra again;\n}" ::"r"(barrier),
               "r"(parity)
               : "memory");
}

/// Whether the phase of that parity is complete.
__device__ __forceinline__ bool barrier_test(Address barrier, unsigned parity) {
  std::uint32_t done;
  asm volatile("{.reg .pred done;\nmbarrier.test_wait.parity.shared::cta.b64 done, [%1], %2;\nselp.u32 %0, 1, 0, done;}"
               : "=r"(done)
               : "r"(barrier), "r"(parity)
               : "memory");
  return done != 0;
}
/// Waits until a word of shared memory, which another warp of the block writes, has that value.
__device__ __forceinline__ void word_wait(Address word, std::uint32_t value) {
  std::uint32_t now;
  do
#ifdef KDACHECK_EVERY_LANE_ARRIVES // racecheck takes a load and a store for a race, whatever their order means
    asm volatile("atom.acquire.cta.shared.or.b32 %0, [%1], 0;" : "=r"(now) : "r"(word) : "memory");
#else
    asm volatile("ld.acquire.cta.shared.b32 %0, [%1];" : "=r"(now) : "r"(word) : "memory");
#endif
  while (now != value);
}
__device__ __forceinline__ void word_set(Address word, std::uint32_t value) {
#ifdef KDACHECK_EVERY_LANE_ARRIVES
  std::uint32_t before;
  asm volatile("atom.release.cta.shared.exch.b32 %0, [%1], %2;" : "=r"(before) : "r"(word), "r"(value) : "memory");
#else
  asm volatile("st.release.cta.shared.b32 [%0], %1;" ::"r"(word), "r"(value) : "memory");
#endif
}

/// Says to a warp of another block that what this one has written may be read.
__device__ __forceinline__ void flag_set(std::uint32_t* flag) {
  asm volatile("fence.acq_rel.gpu;\nst.release.gpu.global.b32 [%0], %1;" ::"l"(flag), "r"(1) : "memory");
}
__device__ __forceinline__ void flag_wait(const std::uint32_t* flag) {
  std::uint32_t now;
  do {
    asm volatile("ld.acquire.gpu.global.b32 %0, [%1];" : "=r"(now) : "l"(flag) : "memory");
    if (now == 0) __nanosleep(100);
  } while (now == 0);
}
/// How many have called this before.
__device__ __forceinline__ std::uint32_t take_ticket(void* count) { return atomicAdd(static_cast<unsigned*>(count), 1u); }

/// Rank of this block among those of its cluster.
__device__ __forceinline__ unsigned cluster_rank() {
  unsigned rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
__device__ __forceinline__ void sync_cluster() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
/// The same place in another block of the cluster; good for the functions named remote only.
__device__ __forceinline__ Address remote_address(Address local, unsigned rank) {
  Address remote;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(local), "r"(rank));
  return remote;
}
__device__ __forceinline__ std::uint32_t load_remote_word(Address at) {
  std::uint32_t x;
  asm volatile("ld.shared::cluster.b32 %0, [%1];" : "=r"(x) : "r"(at) : "memory");
  return x;
}
__device__ __forceinline__ void barrier_arrive_remote(Address barrier) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}
/// Arrives, and makes the phase wait for that many bytes.
__device__ __forceinline__ void barrier_expect_remote(Address barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cluster.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
/// Arrives at a barrier of this block, and makes the phase wait for that many bytes.
__device__ __forceinline__ void barrier_expect(Address barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
/// Copies global memory to shared memory asynchronously, and counts the bytes at a barrier; all multiples of 16.
__device__ __forceinline__ void copy_bulk(Address to, const void* from, unsigned bytes, Address barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from), "r"(bytes),
               "r"(barrier)
               : "memory");
}
/// Copies shared memory to another block asynchronously, and counts the bytes at a barrier there.
__device__ __forceinline__ void copy_remote(Address to, Address from, unsigned bytes, Address barrier) {
  asm volatile("cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "r"(from),
               "r"(bytes), "r"(barrier)
               : "memory");
}
/// Orders this thread's stores before asynchronous copies that a later barrier lets start.
__device__ __forceinline__ void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

} // namespace kdacheck::cuda
