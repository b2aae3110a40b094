// Token by token in fp32, or in coarser formats where the contract says so. One task per (sequence, value head); what a task needs besides
// the state [K,V] is one token.

#include "recurrence.hpp"

#include "accept.hpp"
#include "arena.hpp"
#include "lanes.hpp"
#include "parallel.hpp"
#include "recurrence_backward.hpp"
#include "rounded_token.hpp"
#include "rows.hpp"
#include "token.hpp"

namespace kdacheck::cpu {
namespace {

std::size_t forward_slice(const Inputs& inputs, std::byte* memory, TokenRows* token, float** state) {
  Arena arena{memory};
  const TokenRows rows = take_token_rows(arena, inputs);
  float* S = arena.floats(padded(inputs.shape.K) * padded(inputs.shape.V));
  if (token) *token = rows;
  if (state) *state = S;
  return arena.used;
}

void forward(const Contract& contract, const Inputs& inputs, const Outputs& outputs, std::span<std::byte> workspace) {
  accept(contract, inputs, outputs);
  const Shape& s = inputs.shape;
  const bool rounded = rounds_tokens(contract);
  const double operations = 3.0 * static_cast<double>(s.B * s.T * s.HV) * static_cast<double>(s.K * s.V);
  for_each_task(inputs.N() * s.HV, workspace, forward_slice(inputs, nullptr, nullptr, nullptr), operations,
                [&](std::int64_t index, std::byte* memory) {
                  const std::int64_t n = index / s.HV, head = index % s.HV;
                  TokenRows token;
                  float* state = nullptr;
                  forward_slice(inputs, memory, &token, &state);
                  read_state(inputs[Input::initial_state], contract.state_v_first, n, head, s.K, s.V, state);
                  const Sequence sequence = sequence_of(inputs, n);
                  for (std::int64_t t = 0; t < sequence.length; ++t) {
                    read_token(inputs, sequence.first + t, head, token);
                    if (rounded)
                      advance_rounded(contract, inputs, token, state, state);
                    else
                      advance(inputs, token, state, state);
                    write_rows(outputs.o, s, sequence.first + t, head, 1, token.o);
                  }
                  write_state(outputs.final_state, contract.state_v_first, n, head, s.K, s.V, state);
                });
}

} // namespace

Kernel recurrence(std::string name, std::string summary, Contract contract) {
  contract.order = Order::recurrence;
  contract.chunk = 1;
  contract.decode = {1, 64};
  return {
      .name = std::move(name),
      .summary = std::move(summary),
      .contract = contract,
      .workspace_bytes =
          [contract](const Inputs& inputs, bool backward) {
            return backward ? recurrence_backward_bytes(contract, inputs)
                            : forward_slice(inputs, nullptr, nullptr, nullptr) *
                                  static_cast<std::size_t>(worker_count(inputs.N() * inputs.shape.HV));
          },
      .forward = [contract](const Inputs& inputs, const Outputs& outputs,
                            std::span<std::byte> workspace) { forward(contract, inputs, outputs, workspace); },
      .backward = [contract](const Inputs& inputs, const Cotangents& cotangents, const GradientOutputs& gradients,
                             std::span<std::byte> workspace) { recurrence_backward(contract, inputs, cotangents, gradients, workspace); },
      // every task reads its own part of the state before it writes it
      .decode = [contract](const Inputs& inputs, const Outputs& outputs,
                           std::span<std::byte> workspace) { forward(contract, inputs, outputs, workspace); }};
}

} // namespace kdacheck::cpu
