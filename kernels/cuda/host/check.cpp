#include "check.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <string>

namespace kdacheck::cuda {
namespace {

using Result = kdacheck_cuda_result;
const Result accepted{KDACHECK_CUDA_OK, {}};

Result refuse(kdacheck_cuda_status status, const std::string& sentence) { return cuda::refuse(status, sentence.c_str()); }

Result check_shape(int kernel, const kdacheck_cuda_problem& p, std::int64_t sequences) {
  constexpr std::int64_t most_heads = 1 << 20, most_blocks = 2147483647;
  if (p.B < 1 || p.H < 1 || p.HV < 1 || p.T < 0) return refuse(KDACHECK_CUDA_BAD_SHAPE, "B, H and HV must be at least 1 and T at least 0");
  if (p.T >= std::int64_t{1} << 31) return refuse(KDACHECK_CUDA_BAD_SHAPE, "T must be less than 2^31");
  if (p.HV % p.H != 0 || p.HV > most_heads) return refuse(KDACHECK_CUDA_BAD_SHAPE, "HV must be a multiple of H, at most 2^20");
  if (p.K < 1 || p.K > 256 || p.V < 1 || p.V > 256) return refuse(KDACHECK_CUDA_BAD_SHAPE, "K and V must lie in 1..256");
  if (is_chunk(kernel) && (p.K % 16 != 0 || p.V % 16 != 0))
    return refuse(KDACHECK_CUDA_BAD_SHAPE, "K and V must be multiples of 16 for a chunk kernel");
  if (is_chunk(kernel) && p.rule == KDACHECK_CUDA_DPLR && !has_own_kernel(p.K))
    return refuse(KDACHECK_CUDA_BAD_SHAPE, "K must be 64 or 128 for a chunk kernel with DPLR");
  if (kernel == KDACHECK_CUDA_DECODE) {
    if (p.K % 16 != 0 || p.V % 4 != 0) return refuse(KDACHECK_CUDA_BAD_SHAPE, "decode needs K a multiple of 16 and V a multiple of 4");
    if (p.T < 1 || p.T > 8) return refuse(KDACHECK_CUDA_BAD_SHAPE, "decode takes 1 to 8 tokens");
  }
  if (sequences > most_blocks / (p.HV * 64)) return refuse(KDACHECK_CUDA_BAD_SHAPE, "too many sequences times heads for one launch");
  return accepted;
}

Result check_options(int kernel, const kdacheck_cuda_problem& p) {
  if (p.rule != KDACHECK_CUDA_KDA && p.rule != KDACHECK_CUDA_DPLR)
    return refuse(KDACHECK_CUDA_BAD_OPTION, "rule is none of kdacheck_cuda_rule");
  if (p.rule == KDACHECK_CUDA_DPLR && kernel != KDACHECK_CUDA_RECURRENCE && kernel != KDACHECK_CUDA_CHUNK_FAST)
    return refuse(KDACHECK_CUDA_BAD_OPTION, "rule: only the recurrence and the fast chunk kernel compute DPLR");
  if (p.gate < KDACHECK_CUDA_LOG_DECAY || p.gate > KDACHECK_CUDA_NO_GATE)
    return refuse(KDACHECK_CUDA_BAD_OPTION, "gate is none of kdacheck_cuda_gate");
  if (p.beta_form < KDACHECK_CUDA_BETA_VALUE || p.beta_form > KDACHECK_CUDA_BETA_TWICE_SIGMOID)
    return refuse(KDACHECK_CUDA_BAD_OPTION, "beta_form is none of kdacheck_cuda_beta");
  if (!std::isfinite(p.scale)) return refuse(KDACHECK_CUDA_BAD_OPTION, "scale is not finite");
  if (p.gate == KDACHECK_CUDA_BOUNDED && !(p.lower_bound <= 0 && std::isfinite(p.lower_bound)))
    return refuse(KDACHECK_CUDA_BAD_OPTION, "lower_bound must be a finite number <= 0");
  if (p.state_v_first && kernel == KDACHECK_CUDA_DECODE)
    return refuse(KDACHECK_CUDA_BAD_OPTION, "state_v_first: decode keeps states K-first");
  return accepted;
}

Result check_formats(int kernel, const kdacheck_cuda_problem& p, bool backward) {
  const bool same = p.k.format == p.q.format && p.v.format == p.q.format &&
                    (p.rule == KDACHECK_CUDA_KDA || (p.a.format == p.q.format && p.b.format == p.q.format));
  if (!same) return refuse(KDACHECK_CUDA_BAD_FORMAT, "q, k, v (and a, b) must have one format");
  if (is_chunk(kernel) && (p.q.format == KDACHECK_CUDA_FP32 || (!backward && p.o.format != p.q.format)))
    return refuse(KDACHECK_CUDA_BAD_FORMAT, "a chunk kernel takes q, k, v, o all in bf16 or all in fp16");
  return accepted;
}

Result check_state(int kernel, const kdacheck_cuda_problem& p) {
  const auto aligned = [](const void* pointer, std::uintptr_t bytes) { return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0; };
  for (const void* pointer : std::array<const void*, 4>{p.A_log, p.dt_bias, p.initial_state, p.final_state})
    if (!aligned(pointer, 4)) return refuse(KDACHECK_CUDA_BAD_LAYOUT, "A_log, dt_bias and states must be aligned to 4 bytes");
  if (kernel != KDACHECK_CUDA_DECODE)
    return p.state == nullptr && p.slot == nullptr ? accepted : refuse(KDACHECK_CUDA_BAD_OPTION, "state and slot belong to decode");
  if (p.initial_state != nullptr || p.final_state != nullptr)
    return refuse(KDACHECK_CUDA_BAD_OPTION, "decode updates `state` in place; initial_state and final_state must be absent");
  if (p.state == nullptr) return refuse(KDACHECK_CUDA_NULL_POINTER, "state is a null pointer");
  if (!aligned(p.state, 16)) return refuse(KDACHECK_CUDA_BAD_LAYOUT, "state must be aligned to 16 bytes");
  if (!aligned(p.slot, 4)) return refuse(KDACHECK_CUDA_BAD_LAYOUT, "slot must be aligned to 4 bytes");
  if (p.slots < 1 || (p.slot == nullptr && p.slots < p.B)) return refuse(KDACHECK_CUDA_BAD_SHAPE, "slots: fewer than sequences");
  return accepted;
}

} // namespace

Result refuse(kdacheck_cuda_status status, const char* sentence) {
  Result result{status, {}};
  std::snprintf(result.text, sizeof result.text, "%s", sentence);
  return result;
}

Result check_sequences(int kernel, const kdacheck_cuda_problem& p) {
  const bool packed = p.cu_seqlens != nullptr || p.cu_seqlens_host != nullptr;
  if (!packed) return accepted;
  if (kernel == KDACHECK_CUDA_DECODE) return refuse(KDACHECK_CUDA_BAD_SEQUENCES, "cu_seqlens: decode takes B sequences of T tokens");
  if (p.cu_seqlens == nullptr || p.cu_seqlens_host == nullptr)
    return refuse(KDACHECK_CUDA_NULL_POINTER, "cu_seqlens and cu_seqlens_host must both be given or both be absent");
  if (p.B != 1) return refuse(KDACHECK_CUDA_BAD_SEQUENCES, "cu_seqlens: packed sequences need B = 1");
  if (p.sequences < 1) return refuse(KDACHECK_CUDA_BAD_SEQUENCES, "sequences must be at least 1");
  if (p.cu_seqlens_host[0] != 0) return refuse(KDACHECK_CUDA_BAD_SEQUENCES, "cu_seqlens: the first entry must be 0");
  for (std::int64_t n = 0; n < p.sequences; ++n)
    if (p.cu_seqlens_host[n + 1] < p.cu_seqlens_host[n])
      return refuse(KDACHECK_CUDA_BAD_SEQUENCES, "cu_seqlens: entry " + std::to_string(n + 1) + " decreases");
  if (p.cu_seqlens_host[p.sequences] != p.T) return refuse(KDACHECK_CUDA_BAD_SEQUENCES, "cu_seqlens: the last entry must equal T");
  return accepted;
}

bool is_chunk(int kernel) { return kernel == KDACHECK_CUDA_CHUNK_FAST || kernel == KDACHECK_CUDA_CHUNK_ACCURATE; }

Result check_tensor(int kernel, const kdacheck_cuda_problem& p, const TensorRule& rule) {
  const std::string label = rule.name;
  const kdacheck_cuda_tensor& tensor = *rule.tensor;
  if (rule.due != (tensor.data != nullptr) && p.T > 0)
    return refuse(KDACHECK_CUDA_NULL_POINTER, label + (rule.due ? " is a null pointer" : " has no place in this call and must be absent"));
  if (!rule.due) return accepted;
  if (tensor.format < KDACHECK_CUDA_FP32 || tensor.format > KDACHECK_CUDA_FP16)
    return refuse(KDACHECK_CUDA_BAD_FORMAT, label + ": format is none of kdacheck_cuda_format");
  const bool dense = tensor.stride[0] == 0 && tensor.stride[1] == 0 && tensor.stride[2] == 0;
  const std::int64_t row = rule.heads * rule.channels;
  *rule.view =
      dense ? View{tensor.data, p.T * row, row, rule.channels} : View{tensor.data, tensor.stride[0], tensor.stride[1], tensor.stride[2]};
  if (!dense && rule.channels == 1) rule.view->head = 1;
  if (rule.view->batch < 0 || rule.view->token < 0 || rule.view->head < 0)
    return refuse(KDACHECK_CUDA_BAD_LAYOUT, label + ": strides must not be negative");
  const std::int64_t bytes = tensor.format == KDACHECK_CUDA_FP32 ? 4 : 2;
  const auto address = reinterpret_cast<std::uintptr_t>(tensor.data);
  if (address % static_cast<std::uintptr_t>(bytes) != 0) return refuse(KDACHECK_CUDA_BAD_LAYOUT, label + " is not aligned to its elements");
  if (is_chunk(kernel) && rule.channels > 1) {
    if (address % 16 != 0) return refuse(KDACHECK_CUDA_BAD_LAYOUT, label + " must be aligned to 16 bytes for a chunk kernel");
    for (std::int64_t stride : {p.B > 1 ? rule.view->batch : 0, rule.view->token, rule.view->head})
      if (stride * bytes % 16 != 0)
        return refuse(KDACHECK_CUDA_BAD_LAYOUT, label + ": strides must be multiples of 16 bytes for a chunk kernel");
  }
  // Where rows could coincide, an output would be written twice.
  if (rule.written && !dense && (rule.view->token < rule.channels || rule.view->head < rule.channels))
    return refuse(KDACHECK_CUDA_BAD_LAYOUT, label + ": rows overlap");
  return accepted;
}

CheckedCall check_call(int kernel, const kdacheck_cuda_problem* problem, bool backward) {
  CheckedCall call;
  const auto refused = [&](const Result& result) {
    call.result = result;
    return result.status != KDACHECK_CUDA_OK;
  };
  if (problem == nullptr) return refused(refuse(KDACHECK_CUDA_NULL_POINTER, "problem is a null pointer")), call;
  if (kernel < KDACHECK_CUDA_RECURRENCE || kernel > KDACHECK_CUDA_DECODE)
    return refused(refuse(KDACHECK_CUDA_BAD_OPTION, "kernel is none of kdacheck_cuda_kernel")), call;
  const kdacheck_cuda_problem& p = *problem;
  const bool packed = p.cu_seqlens != nullptr || p.cu_seqlens_host != nullptr;
  call.sequences = packed ? p.sequences : p.B;
  if (refused(check_shape(kernel, p, call.sequences)) || refused(check_options(kernel, p)) || refused(check_sequences(kernel, p)))
    return call;

  ForwardArguments& args = call.args;
  const bool dplr = p.rule == KDACHECK_CUDA_DPLR, gated = p.gate != KDACHECK_CUDA_NO_GATE;
  const bool parametric = p.gate == KDACHECK_CUDA_SOFTPLUS || p.gate == KDACHECK_CUDA_BOUNDED;
  kdacheck_cuda_tensor unused{};
  const std::array rules{TensorRule{"q", &p.q, p.H, p.K, true, &args.q},
                         TensorRule{"k", &p.k, p.H, p.K, true, &args.k},
                         TensorRule{"v", &p.v, p.HV, p.V, true, &args.v},
                         TensorRule{"g", &p.g, p.HV, p.K, gated, &args.g},
                         TensorRule{"beta", &p.beta, p.HV, 1, !dplr, &args.beta},
                         TensorRule{"a", &p.a, p.HV, p.K, dplr, &args.a},
                         TensorRule{"b", &p.b, p.HV, p.K, dplr, &args.b},
                         TensorRule{"o", backward ? &unused : &p.o, p.HV, p.V, !backward, &args.o, true}};
  for (const TensorRule& rule : rules) {
    if (refused(check_tensor(kernel, p, rule))) return call;
    if (rule.tensor->data != nullptr) call.device_pointers.push_back(rule.tensor->data);
  }
  if (refused(check_formats(kernel, p, backward)) || refused(check_state(kernel, p))) return call;
  if (parametric != (p.A_log != nullptr)) {
    refused(refuse(KDACHECK_CUDA_NULL_POINTER, parametric ? "A_log is a null pointer" : "A_log has no place with this gate"));
    return call;
  }
  if (!parametric && p.dt_bias != nullptr) {
    refused(refuse(KDACHECK_CUDA_NULL_POINTER, "dt_bias has no place with this gate"));
    return call;
  }
  const void* final_state = backward ? nullptr : p.final_state;
  for (const void* pointer : std::array<const void*, 7>{p.A_log, p.dt_bias, p.initial_state, final_state, p.cu_seqlens, p.state, p.slot})
    if (pointer != nullptr) call.device_pointers.push_back(pointer);

  args.A_log = p.A_log;
  args.dt_bias = p.dt_bias;
  args.initial_state = p.initial_state;
  args.final_state = kernel == KDACHECK_CUDA_DECODE ? p.state : p.final_state;
  args.cu_seqlens = p.cu_seqlens;
  args.slot = p.slot;
  args.N = kernel == KDACHECK_CUDA_DECODE ? p.slots : call.sequences;
  args.T = p.T;
  args.H = static_cast<int>(p.H);
  args.HV = args.state_heads = static_cast<int>(p.HV);
  args.K = static_cast<int>(p.K);
  args.V = static_cast<int>(p.V);
  args.gate = static_cast<Gate>(p.gate);
  args.beta_form = static_cast<Beta>(p.beta_form);
  args.qkv_format = static_cast<Stored>(p.q.format);
  args.gate_format = static_cast<Stored>(gated ? p.g.format : KDACHECK_CUDA_BF16);
  args.beta_format = static_cast<Stored>(p.beta.format);
  args.output_format = static_cast<Stored>(backward ? p.q.format : p.o.format);
  args.dplr = dplr;
  args.l2norm = p.l2norm != 0;
  args.v_first = p.state_v_first != 0;
  args.lower_bound = p.lower_bound;
  args.scale = p.scale;
  return call;
}

std::size_t workspace_bytes(int kernel, const ForwardArguments& args) {
  const std::int64_t units = args.N * args.HV;
  if (!is_chunk(kernel) || !has_own_kernel(args.K) || args.cu_seqlens != nullptr || units == 1 || args.T < least_dealt_tokens) return 0;
  const auto gangs = static_cast<std::size_t>(std::min<std::int64_t>(units, most_gangs));
  return handover_head_bytes + gangs * static_cast<std::size_t>(args.K) * static_cast<std::size_t>(args.V) * 4;
}

} // namespace kdacheck::cuda
