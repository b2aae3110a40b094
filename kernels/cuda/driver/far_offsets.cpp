// Tensors of more than 2^31 elements: the first and the last head of a call must give the bits that they give in a call of their own.

#include "device.hpp"
#include "driver.hpp"
#include "notes.hpp"

#include <cstdio>

namespace kdacheck::cuda {
namespace {

constexpr std::int64_t T = 8192, H = 2056, K = 128;
static_assert(T * H * K > std::int64_t{1} << 31);

/// One head of a tensor [1,T,H,channels] of 16-bit numbers, dense.
void take_head(void* to, const void* from, std::int64_t head, std::int64_t channels) {
  const auto bytes = static_cast<std::size_t>(channels) * 2;
  require(cudaMemcpy2D(to, bytes, static_cast<const unsigned char*>(from) + static_cast<std::size_t>(head) * bytes,
                       static_cast<std::size_t>(H) * bytes, bytes, static_cast<std::size_t>(T), cudaMemcpyDeviceToDevice),
          "copy");
}
void take(const float* to, const float* from, std::int64_t head, std::int64_t count) {
  require(cudaMemcpy(const_cast<float*>(to), from + head * count, static_cast<std::size_t>(count) * 4, cudaMemcpyDeviceToDevice), "copy");
}

std::vector<unsigned char> bytes_of(const void* from, std::size_t bytes) {
  std::vector<unsigned char> host(bytes);
  require(cudaMemcpy(host.data(), from, bytes, cudaMemcpyDeviceToHost), "copy");
  return host;
}

/// Whether a head of `all` is, bit for bit, what `one` holds.
bool same_head(const void* all, const void* one, std::int64_t head, std::int64_t channels) {
  const std::size_t bytes = static_cast<std::size_t>(T * channels) * 2;
  const DeviceMemory dense = allocate(bytes);
  take_head(dense.get(), all, head, channels);
  return bytes_of(dense.get(), bytes) == bytes_of(one, bytes);
}
bool same_numbers(const float* all, const float* one, std::int64_t head, std::int64_t count) {
  const auto bytes = static_cast<std::size_t>(count) * 4;
  return bytes_of(all + head * count, bytes) == bytes_of(one, bytes);
}

/// That head of a problem as a problem of its own.
DeviceProblem alone(const DeviceProblem& all, std::int64_t head) {
  const bool dplr = all.problem.rule == KDACHECK_CUDA_DPLR;
  DeviceProblem one = make_problem(1, T, 1, K, K, 5, false, dplr);
  const kdacheck_cuda_problem &from = all.problem, &to = one.problem;
  take_head(to.q.data, from.q.data, head, K), take_head(to.k.data, from.k.data, head, K), take_head(to.v.data, from.v.data, head, K);
  take_head(to.g.data, from.g.data, head, K);
  if (dplr)
    take_head(to.a.data, from.a.data, head, K), take_head(to.b.data, from.b.data, head, K);
  else
    take_head(to.beta.data, from.beta.data, head, 1);
  take(to.A_log, from.A_log, head, 1), take(to.dt_bias, from.dt_bias, head, K);
  return one;
}

bool forward_agrees(int kernel, const DeviceProblem& all) {
  require(cudaMemset(all.problem.o.data, 0xff, static_cast<std::size_t>(T * H * K) * 2), "poison");
  require(all.forward(kernel, nullptr));
  bool same = true;
  for (const std::int64_t head : {std::int64_t{0}, H - 1}) {
    const DeviceProblem one = alone(all, head);
    require(one.forward(kernel, nullptr));
    require(cudaDeviceSynchronize(), "run");
    same = same && same_head(all.problem.o.data, one.problem.o.data, head, K) &&
           same_numbers(all.problem.final_state, one.problem.final_state, head, K * K);
  }
  return same;
}

bool backward_agrees(int kernel, const DeviceProblem& all) {
  const auto run = [&](const DeviceProblem& problem, const DeviceGradients& back) {
    require(kdacheck_cuda_backward(kernel, &problem.problem, &back.gradients, back.workspace.get(), back.workspace_bytes, nullptr));
    require(cudaDeviceSynchronize(), "run");
  };
  const DeviceGradients back = make_gradients(kernel, all, 300);
  run(all, back);
  bool same = true;
  for (const std::int64_t head : {std::int64_t{0}, H - 1}) {
    const DeviceProblem one = alone(all, head);
    const DeviceGradients own = make_gradients(kernel, one, 300);
    const kdacheck_cuda_gradients &many = back.gradients, &few = own.gradients;
    take_head(few.d_o.data, many.d_o.data, head, K);
    take(few.d_final_state, many.d_final_state, head, K * K);
    run(one, own);
    same = same && same_head(many.dq.data, few.dq.data, head, K) && same_head(many.dk.data, few.dk.data, head, K) &&
           same_head(many.dv.data, few.dv.data, head, K) && same_head(many.dg.data, few.dg.data, head, K) &&
           same_head(many.dbeta.data, few.dbeta.data, head, 1) && same_numbers(many.d_A_log, few.d_A_log, head, 1) &&
           same_numbers(many.d_dt_bias, few.d_dt_bias, head, K) && same_numbers(many.d_initial_state, few.d_initial_state, head, K * K);
  }
  return same;
}

/// Decode of two sequences, whose states are the first and the last of more than 2^31 numbers, and of the same two in a small table.
bool slots_agree(std::int64_t tokens) {
  constexpr std::int64_t heads = 32, one = heads * K * K, slots = 4200;
  static_assert(slots * one > std::int64_t{1} << 31);
  const DeviceProblem made = make_problem(2, tokens, heads, K, K, 23, true);
  const auto state_bytes = static_cast<std::size_t>(one) * 4, output_bytes = static_cast<std::size_t>(2 * tokens * heads * K) * 2;
  const DeviceMemory table = allocate(static_cast<std::size_t>(slots) * state_bytes), slot = allocate(8);
  auto* states = static_cast<float*>(table.get());
  const std::int32_t places[2] = {0, slots - 1};
  require(cudaMemcpy(slot.get(), places, sizeof places, cudaMemcpyHostToDevice), "copy");
  for (int n = 0; n < 2; ++n)
    require(cudaMemcpy(states + places[n] * one, made.problem.state + n * one, state_bytes, cudaMemcpyDeviceToDevice), "copy");
  kdacheck_cuda_problem far = made.problem;
  far.state = states, far.slots = slots, far.slot = static_cast<const std::int32_t*>(slot.get());
  require(made.forward(KDACHECK_CUDA_DECODE, far, nullptr));
  require(cudaDeviceSynchronize(), "run");
  const auto o = bytes_of(far.o.data, output_bytes);
  require(cudaMemset(far.o.data, 0xff, output_bytes), "poison");
  require(made.forward(KDACHECK_CUDA_DECODE, nullptr));
  require(cudaDeviceSynchronize(), "run");
  bool same = bytes_of(far.o.data, output_bytes) == o;
  for (int n = 0; n < 2; ++n)
    same = same && bytes_of(states + places[n] * one, state_bytes) == bytes_of(made.problem.state + n * one, state_bytes);
  return same;
}

} // namespace

bool check_far_offsets(nlohmann::json& report) {
  Notes note(report);
  std::size_t free = 0, total = 0;
  require(cudaMemGetInfo(&free, &total), "memory");
  constexpr auto GiB = std::size_t{1} << 30;
  const char* forward = "heads of tensors beyond 2^31 elements keep their bits";
  const char* backward = "gradients beyond 2^31 elements keep their bits";
  if (free < 24 * GiB) {
    note.not_run(forward, "all", "less than 24 GiB of device memory are free");
    note.not_run(backward, "fast", "less than 124 GiB of device memory are free");
    return true;
  }
  note("states beyond 2^31 numbers keep their bits", "decode, one token", slots_agree(1));
  note("states beyond 2^31 numbers keep their bits", "decode", slots_agree(3));
  if (free < 40 * GiB)
    note.not_run(forward, "dplr", "less than 40 GiB of device memory are free");
  else
    note(forward, "dplr", forward_agrees(KDACHECK_CUDA_CHUNK_FAST, make_problem(1, T, H, K, K, 22, false, true)));
  const DeviceProblem problem = make_problem(1, T, H, K, K, 21);
  note(forward, "recurrence", forward_agrees(KDACHECK_CUDA_RECURRENCE, problem));
  note(forward, "fast", forward_agrees(KDACHECK_CUDA_CHUNK_FAST, problem));
  note(forward, "accurate", forward_agrees(KDACHECK_CUDA_CHUNK_ACCURATE, problem));
  for (const auto& [kernel, name] : {std::pair{KDACHECK_CUDA_CHUNK_FAST, "fast"}, std::pair{KDACHECK_CUDA_CHUNK_ACCURATE, "accurate"}})
    if (free < 124 * GiB)
      note.not_run(backward, name, "less than 124 GiB of device memory are free");
    else
      note(backward, name, backward_agrees(kernel, problem));
  return note.all_good();
}

} // namespace kdacheck::cuda
