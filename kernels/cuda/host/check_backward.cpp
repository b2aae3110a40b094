#include "backward_workspace.hpp"
#include "check.hpp"
#include "dplr_workspace.hpp"
#include "recurrence_workspace.hpp"

#include <array>
#include <string>

namespace kdacheck::cuda {
namespace {

/// bf16 terms of an operand.
int pieces_of(int kernel) { return kernel == KDACHECK_CUDA_CHUNK_ACCURATE ? 2 : 1; }

kdacheck_cuda_result check_shape(int kernel, const kdacheck_cuda_problem& p, std::int64_t sequences) {
  if (kernel == KDACHECK_CUDA_CHUNK_ACCURATE && p.K > 128)
    return refuse(KDACHECK_CUDA_BAD_SHAPE, "K must be at most 128 for the accurate backward pass");
  if (kernel == KDACHECK_CUDA_CHUNK_ACCURATE && p.K != 64 && p.V > 128)
    return refuse(KDACHECK_CUDA_BAD_SHAPE, "V must be at most 128 for the accurate backward pass unless K is 64");
  constexpr std::int64_t most_blocks = 2147483647;
  const std::int64_t segments = p.B * (p.T / segment_tokens + 1) + sequences;
  if (segments > most_blocks / (kernel == KDACHECK_CUDA_RECURRENCE ? p.HV : p.H))
    return refuse(KDACHECK_CUDA_BAD_SHAPE, "too many tokens times heads for one launch");
  return {};
}

/// Gradients that have no place in the call.
kdacheck_cuda_result check_places(const kdacheck_cuda_problem& p, const kdacheck_cuda_gradients& d) {
  if (p.gate == KDACHECK_CUDA_NO_GATE && d.dg.data != nullptr) return refuse(KDACHECK_CUDA_NULL_POINTER, "dg has no place without a gate");
  const bool parametric = p.gate == KDACHECK_CUDA_SOFTPLUS || p.gate == KDACHECK_CUDA_BOUNDED;
  if (!parametric && (d.d_A_log != nullptr || d.d_dt_bias != nullptr))
    return refuse(KDACHECK_CUDA_NULL_POINTER, "d_A_log and d_dt_bias have no place with this gate");
  const bool dplr = p.rule == KDACHECK_CUDA_DPLR;
  if (dplr && d.dbeta.data != nullptr) return refuse(KDACHECK_CUDA_NULL_POINTER, "dbeta has no place with DPLR");
  if (!dplr && (d.da.data != nullptr || d.db.data != nullptr))
    return refuse(KDACHECK_CUDA_NULL_POINTER, "da and db have no place without DPLR");
  if (p.dt_bias == nullptr && d.d_dt_bias != nullptr) return refuse(KDACHECK_CUDA_NULL_POINTER, "d_dt_bias has no place without dt_bias");
  if (d.d_o.data != nullptr && d.d_o.format != p.v.format) return refuse(KDACHECK_CUDA_BAD_FORMAT, "d_o must have the format of v");
  for (const void* pointer : std::array<const void*, 4>{d.d_final_state, d.d_A_log, d.d_dt_bias, d.d_initial_state})
    if (reinterpret_cast<std::uintptr_t>(pointer) % 4 != 0)
      return refuse(KDACHECK_CUDA_BAD_LAYOUT, "d_A_log, d_dt_bias and gradients of states must be aligned to 4 bytes");
  return {};
}

} // namespace

CheckedBackward check_backward(int kernel, const kdacheck_cuda_problem* problem, const kdacheck_cuda_gradients* gradients) {
  CheckedBackward checked;
  const auto refused = [&](const kdacheck_cuda_result& result) {
    checked.result = result;
    return result.status != KDACHECK_CUDA_OK;
  };
  if (!is_chunk(kernel) && kernel != KDACHECK_CUDA_RECURRENCE)
    return refused(refuse(KDACHECK_CUDA_BAD_OPTION, "kernel: only the recurrence and the chunk kernels have a backward pass")), checked;
  CheckedCall call = check_call(kernel, problem, true);
  if (refused(call.result)) return checked;
  const kdacheck_cuda_problem& p = *problem;
  if (refused(check_shape(kernel, p, call.sequences))) return checked;
  BackwardArguments& args = checked.args;
  args.call = call.args;
  args.B = p.B;
  checked.device_pointers = std::move(call.device_pointers);
  if (gradients == nullptr) return checked;
  const kdacheck_cuda_gradients& d = *gradients;
  if (refused(check_places(p, d))) return checked;
  const std::array rules{
      TensorRule{"d_o", &d.d_o, p.HV, p.V, true, &args.d_o, false}, TensorRule{"dq", &d.dq, p.H, p.K, true, &args.dq, true},
      TensorRule{"dk", &d.dk, p.H, p.K, true, &args.dk, true},      TensorRule{"dv", &d.dv, p.HV, p.V, true, &args.dv, true},
      TensorRule{"dg", &d.dg, p.HV, p.K, true, &args.dg, true},     TensorRule{"dbeta", &d.dbeta, p.HV, 1, true, &args.dbeta, true},
      TensorRule{"da", &d.da, p.HV, p.K, true, &args.da, true},     TensorRule{"db", &d.db, p.HV, p.K, true, &args.db, true}};
  for (const TensorRule& rule : rules) {
    if (rule.tensor->data == nullptr) continue;
    if (refused(check_tensor(kernel, p, rule))) return checked;
    checked.device_pointers.push_back(rule.tensor->data);
  }
  for (const void* pointer : std::array<const void*, 4>{d.d_final_state, d.d_A_log, d.d_dt_bias, d.d_initial_state})
    if (pointer != nullptr) checked.device_pointers.push_back(pointer);
  args.dq_format = static_cast<Stored>(d.dq.format), args.dk_format = static_cast<Stored>(d.dk.format);
  args.dv_format = static_cast<Stored>(d.dv.format), args.dg_format = static_cast<Stored>(d.dg.format);
  args.dbeta_format = static_cast<Stored>(d.dbeta.format);
  args.da_format = static_cast<Stored>(d.da.format), args.db_format = static_cast<Stored>(d.db.format);
  args.d_final_state = d.d_final_state, args.d_initial_state = d.d_initial_state;
  args.d_A_log = d.d_A_log, args.d_dt_bias = d.d_dt_bias;
  return checked;
}

std::size_t backward_workspace_bytes(int kernel, const BackwardArguments& args) {
  if (kernel == KDACHECK_CUDA_RECURRENCE) return recurrence_workspace(args.call, args.B).bytes;
  if (args.call.dplr) return general_workspace(args.call, args.B, args.call.cu_seqlens != nullptr).bytes;
  return backward_workspace(args.call, args.B, pieces_of(kernel), args.call.cu_seqlens != nullptr).bytes;
}

} // namespace kdacheck::cuda
