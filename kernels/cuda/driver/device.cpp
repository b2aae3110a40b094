#include "device.hpp"

#include "../../../reference/number_format.hpp"

#include <cmath>
#include <random>

namespace kdacheck::cuda {
namespace {

/// Repeats a host pool over device memory.
DeviceMemory tile(const void* pool, std::size_t pool_bytes, std::size_t bytes) {
  DeviceMemory memory = allocate(bytes);
  auto* to = static_cast<unsigned char*>(memory.get());
  const std::size_t first = std::min(pool_bytes, bytes);
  require(cudaMemcpy(to, pool, first, cudaMemcpyHostToDevice), "copy");
  for (std::size_t done = first; done < bytes;) {
    const std::size_t part = std::min(done, bytes - done);
    require(cudaMemcpy(to + done, to, part, cudaMemcpyDeviceToDevice), "copy");
    done += part;
  }
  return memory;
}

template <class Convert> auto draw(std::int64_t count, float mean, float deviation, unsigned seed, Convert convert) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(mean, deviation);
  const std::int64_t size = std::min(count, pool_numbers);
  std::vector<decltype(convert(0.0f))> pool(static_cast<std::size_t>(size));
  for (auto& x : pool) x = convert(normal(engine));
  return pool;
}

} // namespace

DeviceMemory allocate(std::size_t bytes) {
  void* pointer = nullptr;
  require(cudaMalloc(&pointer, bytes), "cudaMalloc");
  return DeviceMemory(pointer);
}

DeviceMemory random_bf16(std::int64_t count, float mean, float deviation, unsigned seed) {
  const auto pool = draw(count, mean, deviation, seed,
                         [](float x) { return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(round_bf16(x)) >> 16); });
  return tile(pool.data(), pool.size() * 2, static_cast<std::size_t>(count) * 2);
}

DeviceMemory random_fp32(std::int64_t count, float mean, float deviation, unsigned seed) {
  const auto pool = draw(count, mean, deviation, seed, [](float x) { return x; });
  return tile(pool.data(), pool.size() * 4, static_cast<std::size_t>(count) * 4);
}

DeviceProblem make_problem(std::int64_t B, std::int64_t T, std::int64_t H, std::int64_t K, std::int64_t V, unsigned seed, bool decode,
                           bool dplr, std::int64_t group) {
  DeviceProblem made;
  kdacheck_cuda_problem& p = made.problem;
  p.B = B, p.T = T, p.H = H, p.HV = H * group, p.K = K, p.V = V;
  p.gate = KDACHECK_CUDA_BOUNDED, p.beta_form = KDACHECK_CUDA_BETA_SIGMOID, p.l2norm = 1;
  p.lower_bound = -5, p.scale = 0.08838834764831845f;
  const auto keep = [&](DeviceMemory memory) {
    made.memory.push_back(std::move(memory));
    return made.memory.back().get();
  };
  const auto bf16 = [&](std::int64_t count, float mean) {
    return kdacheck_cuda_tensor{keep(random_bf16(count, mean, 1, ++seed)), KDACHECK_CUDA_BF16, {}};
  };
  const std::int64_t key_rows = B * T * H, rows = key_rows * group;
  p.q = bf16(key_rows * K, 0), p.k = bf16(key_rows * K, 0), p.v = bf16(rows * V, 0), p.g = bf16(rows * K, -2);
  if (dplr) {
    const float size = 0.5f / std::sqrt(static_cast<float>(K));
    p.rule = KDACHECK_CUDA_DPLR;
    p.a = {keep(random_bf16(rows * K, 0, size, ++seed)), KDACHECK_CUDA_BF16, {}};
    p.b = {keep(random_bf16(rows * K, 0, size, ++seed)), KDACHECK_CUDA_BF16, {}};
  } else {
    p.beta = bf16(rows, 0);
  }
  p.A_log = static_cast<const float*>(keep(random_fp32(p.HV, 0, 0.3f, ++seed)));
  p.dt_bias = static_cast<const float*>(keep(random_fp32(p.HV * K, 0, 0.5f, ++seed)));
  p.o = {keep(allocate(static_cast<std::size_t>(rows * V) * 2)), KDACHECK_CUDA_BF16, {}};
  const std::int64_t states = B * p.HV * K * V;
  if (decode) {
    p.state = static_cast<float*>(keep(random_fp32(states, 0, 0.1f, ++seed)));
    p.slots = B;
  } else {
    p.final_state = static_cast<float*>(keep(allocate(static_cast<std::size_t>(states) * 4)));
  }
  if (!decode && V % 16 == 0) require(kdacheck_cuda_workspace_bytes(KDACHECK_CUDA_CHUNK_FAST, &p, &made.workspace_bytes));
  if (made.workspace_bytes > 0) made.workspace = allocate(made.workspace_bytes);
  return made;
}

DeviceGradients make_gradients(int kernel, const DeviceProblem& of, unsigned seed) {
  DeviceGradients made;
  const kdacheck_cuda_problem& p = of.problem;
  kdacheck_cuda_gradients& d = made.gradients;
  const auto keep = [&](DeviceMemory memory) {
    made.memory.push_back(std::move(memory));
    return made.memory.back().get();
  };
  const auto output = [&](std::size_t bytes) {
    void* data = keep(allocate(bytes));
    made.outputs.emplace_back(data, bytes);
    return data;
  };
  const auto bf16 = [&](std::int64_t count) {
    return kdacheck_cuda_tensor{output(static_cast<std::size_t>(count) * 2), KDACHECK_CUDA_BF16, {}};
  };
  const auto fp32 = [&](std::int64_t count) { return static_cast<float*>(output(static_cast<std::size_t>(count) * 4)); };
  const std::int64_t tokens = p.B * p.T, states = p.B * p.HV * p.K * p.V;
  d.d_o = {keep(random_bf16(tokens * p.HV * p.V, 0, 1, seed)), KDACHECK_CUDA_BF16, {}};
  d.d_final_state = static_cast<const float*>(keep(random_fp32(states, 0, 1, seed + 1)));
  d.dq = bf16(tokens * p.H * p.K), d.dk = bf16(tokens * p.H * p.K), d.dv = bf16(tokens * p.HV * p.V), d.dg = bf16(tokens * p.HV * p.K);
  if (p.rule == KDACHECK_CUDA_DPLR)
    d.da = bf16(tokens * p.HV * p.K), d.db = bf16(tokens * p.HV * p.K);
  else
    d.dbeta = bf16(tokens * p.HV);
  d.d_A_log = fp32(p.HV), d.d_dt_bias = fp32(p.HV * p.K), d.d_initial_state = fp32(states);
  require(kdacheck_cuda_backward_workspace_bytes(kernel, &p, &made.workspace_bytes));
  made.workspace = allocate(made.workspace_bytes);
  return made;
}

} // namespace kdacheck::cuda
