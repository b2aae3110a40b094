#pragma once
// What a forward kernel is launched with: device pointers, strides and options, already checked (check.hpp).

#include <cstddef>
#include <cstdint>

namespace kdacheck::cuda {

/// A tensor [B,T,heads,channels] in device memory; strides in elements, the last one is 1.
struct View {
  void* data = nullptr;
  std::int64_t batch = 0, token = 0, head = 0;
};

// The same order as kdacheck::GateForm, BetaForm, and the public header's formats.
enum class Gate : int { log_decay, softplus, bounded, sigmoid, absent };
enum class Beta : int { value, sigmoid, twice_sigmoid };
enum class Stored : int { fp32, bf16, fp16 };

struct ForwardArguments {
  View q, k, v, g, beta, a, b, o;
  const float* A_log = nullptr;         ///< [HV]
  const float* dt_bias = nullptr;       ///< [HV,K] or absent
  const float* initial_state = nullptr; ///< [N,HV,K,V] ([N,HV,V,K] if v_first) or absent
  float* final_state = nullptr;
  const std::int64_t* cu_seqlens = nullptr; ///< [N+1] or absent
  const std::int32_t* slot = nullptr;       ///< decode only: [B], negative ones are skipped
  std::int64_t N = 1, T = 0;
  int H = 1, HV = 1, K = 1, V = 1;
  int state_heads = 1; ///< of the tensors of states, [N,state_heads,K,V]: HV, or more where a backward pass works on some heads only
  Gate gate = Gate::log_decay;
  Beta beta_form = Beta::value;
  Stored qkv_format = Stored::fp32, gate_format = Stored::fp32, beta_format = Stored::fp32, output_format = Stored::fp32;
  bool dplr = false, l2norm = false, v_first = false;
  float lower_bound = -5, scale = 1;
  std::int64_t first_unit = 0; ///< a chunk kernel's first block works on this one of the N HV units (sequence, head)
  // Shape of a chunk kernel's block: value columns are cut into `slices`, 16 columns a consumer warp.
  // The `sharing` blocks of a cluster work on one head and share the chunks that each of them prepares.
  // Where many share, chunks are prepared beside the ring (`staged`), not in it: a place in the ring is then held shortly.
  bool staged = false;
  int sharing = 1, slices = 1, consumer_warps = 1, producer_warps = 1, stages = 2;
  // Where the chunks of all units are dealt out evenly (chunk_shifts.cuh): chunks a gang, and what gangs hand over.
  int share = 0; ///< 0: a gang has one unit
  unsigned char* handover = nullptr;
};

/// Whether chunk kernels are made for keys of K channels; others go through kernels that have room for more.
constexpr bool has_own_kernel(std::int64_t K) { return K == 64 || K == 128; }

inline constexpr std::int64_t least_dealt_tokens = 256;  ///< shorter sequences are not dealt out: it would not pay
inline constexpr int most_gangs = 256, most_groups = 16; ///< groups of 16 value columns
/// Count and flags at the beginning of the handover; zero before a launch.
inline constexpr int handover_head_bytes = 256 + most_gangs * most_groups * 4;

/// A checked call of a backward pass.
struct BackwardArguments {
  ForwardArguments call;                   ///< `o` and `final_state` are not used
  View d_o, dq, dk, dv, dg, dbeta, da, db; ///< absent: zero, or not wanted
  Stored dq_format = Stored::fp32, dk_format = Stored::fp32, dv_format = Stored::fp32, dg_format = Stored::fp32,
         dbeta_format = Stored::fp32, da_format = Stored::fp32, db_format = Stored::fp32;
  const float* d_final_state = nullptr;
  float *d_initial_state = nullptr, *d_A_log = nullptr, *d_dt_bias = nullptr;
  std::int64_t B = 1;
  unsigned char* workspace = nullptr;
};

/// What the pass that keeps chunks for the sweeps is launched with.
struct StageArguments {
  ForwardArguments call;
  unsigned char* data = nullptr; ///< [HV][slots] stages
  std::int64_t slots = 0;        ///< some may hold no chunk
  int warps = 1, blocks = 1;
};

/// What the sweeps of the backward pass are launched with (backward_workspace.hpp says what lies where).
struct SweepArguments {
  ForwardArguments call; ///< `o` is not used
  View d_o;              ///< [B,T,HV,V] as `call.output_format` says; absent: zero
  View dv;               ///< absent: not wanted
  Stored dv_format = Stored::fp32;
  const float* d_final_state = nullptr; ///< layout as the state's; absent: zero
  float* d_initial_state = nullptr;     ///< absent: not wanted
  std::uint16_t* rows = nullptr;        ///< R, or M: terms [pieces][B T][HV][V] of bf16
  std::int64_t rows_total = 0;          ///< B T
  std::uint32_t* states = nullptr;      ///< S, or dS, between segments
};

/// Both sweeps over chunks that have been kept, in one launch.
struct KeptSweepArguments {
  SweepArguments states, adjoint;
  const unsigned char* data = nullptr; ///< [HV][slots] stages
  std::int64_t slots = 0;
  int slices = 1, warps = 1, ring = 2; ///< parts of the value columns; consumer warps of a block, 16 columns each; stages in flight
};

/// What the last pass, parallel over segments, is launched with.
struct GradientArguments {
  ForwardArguments call;
  View d_o, dq, dk, dg, dbeta; ///< gradients without data are not wanted
  Stored dq_format = Stored::fp32, dk_format = Stored::fp32, dg_format = Stored::fp32, dbeta_format = Stored::fp32;
  const float* d_final_state = nullptr;
  const std::uint16_t *R = nullptr, *M = nullptr;
  std::int64_t rows_total = 0;
  const std::uint32_t *S = nullptr, *dS = nullptr;
  float *group_q = nullptr, *group_k = nullptr;        ///< [B T][H][K]: sums over value heads, where heads are grouped
  int group_heads = 1, group_first = 0;                ///< value heads of a group; the first of them that this launch works on
  float *partial_bias = nullptr, *partial_A = nullptr; ///< [slots][HV][K], [slots][HV]; absent: not wanted
  std::int64_t segment_slots = 0;
};

/// Sums of the partial sums over slots, in order.
struct ParameterArguments {
  const float *partial_bias = nullptr, *partial_A = nullptr;
  float *d_dt_bias = nullptr, *d_A_log = nullptr; ///< [HV,K], [HV]; absent: not wanted
  std::int64_t segment_slots = 0;
  int HV = 1, K = 1;
};

/// What the gate alone is launched with.
struct GateArguments {
  ForwardArguments call; ///< g, gate, A_log, dt_bias, lower_bound, cu_seqlens, N, T, HV, K are used
  View log_decay, sums;  ///< absent: not wanted
  Stored log_decay_format = Stored::fp32, sums_format = Stored::fp32;
  int chunk = 16;         ///< tokens
  std::int64_t slots = 0; ///< chunks of all sequences; some may hold no token
};

} // namespace kdacheck::cuda
