#include "check.hpp"

#include <array>

namespace kdacheck::cuda {
namespace {

kdacheck_cuda_result check_options(const kdacheck_cuda_transition_call& p) {
  if (p.B < 1 || p.HV < 1) return refuse(KDACHECK_CUDA_BAD_SHAPE, "B and HV must be at least 1");
  if (p.HV > 1 << 20) return refuse(KDACHECK_CUDA_BAD_SHAPE, "HV must be at most 2^20");
  if (p.T < 1 || p.T > 8) return refuse(KDACHECK_CUDA_BAD_SHAPE, "the transition takes 1 to 8 tokens");
  if (p.K < 1 || p.K > 256) return refuse(KDACHECK_CUDA_BAD_SHAPE, "K must lie in 1..256");
  if (p.V < 4 || p.V > 256 || p.V % 4 != 0) return refuse(KDACHECK_CUDA_BAD_SHAPE, "V must be a multiple of 4 up to 256");
  if (p.B > 2147483647 / (p.HV * 16)) return refuse(KDACHECK_CUDA_BAD_SHAPE, "too many sequences times heads for one launch");
  if ((p.k.data != nullptr) != (p.v.data != nullptr))
    return refuse(KDACHECK_CUDA_NULL_POINTER, "k and v must both be given or both be absent");
  if (p.state == nullptr) return refuse(KDACHECK_CUDA_NULL_POINTER, "state is a null pointer");
  if (reinterpret_cast<std::uintptr_t>(p.state) % 16 != 0) return refuse(KDACHECK_CUDA_BAD_LAYOUT, "state must be aligned to 16 bytes");
  if (reinterpret_cast<std::uintptr_t>(p.slot) % 4 != 0) return refuse(KDACHECK_CUDA_BAD_LAYOUT, "slot must be aligned to 4 bytes");
  if (p.slots < 1 || (p.slot == nullptr && p.slots < p.B)) return refuse(KDACHECK_CUDA_BAD_SHAPE, "slots: fewer than sequences");
  return {};
}

} // namespace

CheckedTransition check_transition(const kdacheck_cuda_transition_call* call) {
  CheckedTransition checked;
  const auto refused = [&](const kdacheck_cuda_result& result) {
    checked.result = result;
    return result.status != KDACHECK_CUDA_OK;
  };
  if (call == nullptr) return refused(refuse(KDACHECK_CUDA_NULL_POINTER, "the call is a null pointer")), checked;
  const kdacheck_cuda_transition_call& p = *call;
  if (refused(check_options(p))) return checked;
  kdacheck_cuda_problem like{}; // what the check of tensors looks at
  like.B = p.B, like.T = p.T;
  TransitionArguments& args = checked.args;
  const bool adds = p.k.data != nullptr;
  const std::array rules{TensorRule{"d", &p.d, p.HV, p.K, true, &args.d}, TensorRule{"a", &p.a, p.HV, p.K, true, &args.a},
                         TensorRule{"b", &p.b, p.HV, p.K, true, &args.b}, TensorRule{"k", &p.k, p.HV, p.K, adds, &args.k},
                         TensorRule{"v", &p.v, p.HV, p.V, adds, &args.v}};
  for (const TensorRule& rule : rules) {
    if (refused(check_tensor(KDACHECK_CUDA_RECURRENCE, like, rule))) return checked;
    if (rule.tensor->data != nullptr) checked.device_pointers.push_back(rule.tensor->data);
  }
  checked.device_pointers.push_back(p.state);
  if (p.slot != nullptr) checked.device_pointers.push_back(p.slot);
  args.d_format = static_cast<Stored>(p.d.format), args.a_format = static_cast<Stored>(p.a.format);
  args.b_format = static_cast<Stored>(p.b.format), args.k_format = static_cast<Stored>(p.k.format);
  args.v_format = static_cast<Stored>(p.v.format);
  args.state = p.state, args.slot = p.slot, args.B = p.B, args.slots = p.slots;
  args.T = static_cast<int>(p.T), args.HV = static_cast<int>(p.HV), args.K = static_cast<int>(p.K), args.V = static_cast<int>(p.V);
  return checked;
}

} // namespace kdacheck::cuda
