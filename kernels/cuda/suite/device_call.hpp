#pragma once
// A call of the suite's as a call of the public interface: host tensors get twins in device memory.

#include "../../kernel.hpp"
#include "../kdacheck_cuda.h"
#include "device_buffers.hpp"

namespace kdacheck::cuda {

/// One host view's device twin.
struct Twin {
  std::size_t index = 0;
  bool present = false;
  Format format = Format::fp32;
};

class DeviceCall {
public:
  /// All inputs but the initial state if `own_state`. Throws Refused if one is not dense.
  DeviceCall(const Inputs&, bool own_state);
  /// An input's or output's twin. Poisoned if it is written.
  Twin mirror(std::string_view name, const TensorView&, bool input);
  /// Places the tensors, with two patterns of poison by turns.
  void place();
  /// The problem without o and final_state.
  kdacheck_cuda_problem problem(bool v_first) const;
  kdacheck_cuda_tensor tensor(const Twin&) const;
  float* numbers(const Twin& twin) const { return static_cast<float*>(tensor(twin).data); }
  /// Waits, then throws if the kernel failed, or wrote outside its outputs (`changing` is exempt).
  void finish(std::size_t changing = static_cast<std::size_t>(-1)) const;

  DeviceBuffers buffers;

private:
  const Inputs& in;
  std::array<Twin, all_inputs.size()> twins;
  std::size_t lengths = 0;
};

void refuse_unless_ok(const kdacheck_cuda_result&);

} // namespace kdacheck::cuda
