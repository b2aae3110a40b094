// What a backward pass may do beside its arithmetic: write or read where it must not.

#include "backward_with_faults.hpp"

namespace kdacheck::faults {

void misbehave(const BackwardCall& call, std::span<std::byte> workspace) {
  const TensorView& dv = call.out[Input::v];
  const TensorView& k = call.in[Input::k];
  const std::int64_t elements = dv ? dv.elements() : 0;
  if (elements == 0) return;
  if (call.on(Fault::backward_write_past_end)) store(dv, elements, 0.0f);
  if (call.on(Fault::backward_input_changed) && k.elements() > 0) store(k, 0, load(k, 0) * 0.5f + 1.0f);
  if (call.on(Fault::backward_workspace_read))
    store(dv, 0, load(dv, 0) + load({.data = workspace.data(), .format = Format::fp32}, 0) * 1e-30f);
  if (call.on(Fault::backward_heads_share_nan) && call.cotangents.d_o) {
    float leak = 0;
    for (std::int64_t i = 0; i < elements; ++i) leak += 0 * load(call.cotangents.d_o, i);
    for (std::int64_t i = 0; i < elements; ++i) store(dv, i, load(dv, i) + leak);
  }
}

} // namespace kdacheck::faults
