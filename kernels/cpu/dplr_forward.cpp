// Forward pass of DPLR over the chunks of a sequence. One task per (sequence, value head); the state stays in the task's slice
// of the workspace from the first chunk to the last.

#include "accept.hpp"
#include "dplr_backward.hpp"
#include "dplr_chunk.hpp"
#include "lanes.hpp"
#include "parallel.hpp"
#include "rows.hpp"

#include <algorithm>

namespace kdacheck::cpu {
namespace {

struct Slice {
  DplrChunk chunk;
  DplrRecord record;
  float *o = nullptr, *scratch = nullptr;
};

Slice take_slice(Arena& arena, const ChunkPlan& plan, const Inputs& inputs) {
  const std::int64_t V = padded(inputs.shape.V);
  Slice slice;
  slice.chunk = take_dplr_chunk(arena, plan, inputs);
  slice.record = take_dplr_record(arena, plan, inputs);
  slice.o = arena.floats(plan.C * V);
  slice.scratch = arena.floats(plan.C * V);
  return slice;
}

std::size_t slice_bytes(const ChunkPlan& plan, const Inputs& inputs) {
  Arena measure;
  take_slice(measure, plan, inputs);
  return measure.used;
}

void forward(const Contract& contract, const Inputs& inputs, const Outputs& outputs, std::span<std::byte> workspace) {
  accept(contract, inputs, outputs);
  const Shape& s = inputs.shape;
  const ChunkPlan plan = plan_of(contract);
  const double operations = 6.0 * static_cast<double>(s.B * s.T * s.HV) * static_cast<double>(s.K * (s.V + plan.C));
  for_each_task(inputs.N() * s.HV, workspace, slice_bytes(plan, inputs), operations, [&](std::int64_t index, std::byte* memory) {
    const std::int64_t n = index / s.HV, head = index % s.HV;
    Arena arena{memory};
    Slice slice = take_slice(arena, plan, inputs);
    read_state(inputs[Input::initial_state], contract.state_v_first, n, head, s.K, s.V, slice.record.state);
    const Sequence sequence = sequence_of(inputs, n);
    for (std::int64_t t = 0; t < sequence.length; t += plan.C) {
      read_dplr_chunk(plan, inputs, sequence.first + t, head, std::min(plan.C, sequence.length - t), slice.chunk);
      solve_dplr_chunk(plan, slice.chunk, slice.record, slice.scratch);
      dplr_output(slice.chunk, slice.record, slice.o);
      write_rows(outputs.o, s, sequence.first + t, head, slice.chunk.n, slice.o);
      next_dplr_state(plan, slice.chunk, slice.record, slice.record.state);
    }
    write_state(outputs.final_state, contract.state_v_first, n, head, s.K, s.V, slice.record.state);
  });
}

} // namespace

Kernel dplr_chunkwise(std::string name, std::string summary, Contract contract) {
  const ChunkPlan plan = plan_of(contract);
  return {.name = std::move(name),
          .summary = std::move(summary),
          .contract = contract,
          .workspace_bytes =
              [contract, plan](const Inputs& inputs, bool backward) {
                return backward ? dplr_backward_bytes(contract, inputs)
                                : slice_bytes(plan, inputs) * static_cast<std::size_t>(worker_count(inputs.N() * inputs.shape.HV));
              },
          .forward = [contract](const Inputs& inputs, const Outputs& outputs,
                                std::span<std::byte> workspace) { forward(contract, inputs, outputs, workspace); },
          .backward = [contract](const Inputs& inputs, const Cotangents& cotangents, const GradientOutputs& gradients,
                                 std::span<std::byte> workspace) { dplr_backward(contract, inputs, cotangents, gradients, workspace); }};
}

} // namespace kdacheck::cpu
