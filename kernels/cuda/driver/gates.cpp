// The gate's kernel alone: against double, refusals, and its time.

#include "../../../reference/number_format.hpp"
#include "device.hpp"
#include "driver.hpp"
#include "notes.hpp"

#include <cmath>

namespace kdacheck::cuda {
namespace {

/// A call on random tensors: bf16 in, both outputs in fp32.
struct GateCase {
  DeviceMemory g, A_log, dt_bias, log_decay, sums;
  kdacheck_cuda_gates_call call{};

  GateCase(std::int64_t B, std::int64_t T, std::int64_t HV, std::int64_t K, int gate, unsigned seed) {
    const std::int64_t count = B * T * HV * K;
    g = random_bf16(count, 0, 2, seed), A_log = random_fp32(HV, 0, 0.3f, seed + 1), dt_bias = random_fp32(HV * K, 0, 0.5f, seed + 2);
    log_decay = allocate(static_cast<std::size_t>(count) * 4), sums = allocate(static_cast<std::size_t>(count) * 4);
    require(cudaMemset(log_decay.get(), 0xff, static_cast<std::size_t>(count) * 4), "poison");
    require(cudaMemset(sums.get(), 0xff, static_cast<std::size_t>(count) * 4), "poison");
    call.B = B, call.T = T, call.HV = HV, call.K = K, call.gate = gate, call.lower_bound = -5, call.chunk = 64;
    call.g = {g.get(), KDACHECK_CUDA_BF16, {}};
    call.log_decay = {log_decay.get(), KDACHECK_CUDA_FP32, {}}, call.sums = {sums.get(), KDACHECK_CUDA_FP32, {}};
    if (gate == KDACHECK_CUDA_SOFTPLUS || gate == KDACHECK_CUDA_BOUNDED)
      call.A_log = static_cast<const float*>(A_log.get()), call.dt_bias = static_cast<const float*>(dt_bias.get());
  }
};

template <class Number> std::vector<Number> host_copy(const DeviceMemory& memory, std::int64_t count) {
  std::vector<Number> copy(static_cast<std::size_t>(count));
  require(cudaMemcpy(copy.data(), memory.get(), copy.size() * sizeof(Number), cudaMemcpyDeviceToHost), "copy");
  return copy;
}

/// Whether every number of both outputs is what double gives, to what rounding an argument of 20 makes of an exponential.
bool agrees(const GateCase& made) {
  const auto& p = made.call;
  const std::int64_t count = p.B * p.T * p.HV * p.K;
  require(kdacheck_cuda_gates(&p, nullptr));
  require(cudaDeviceSynchronize(), "gates");
  const auto g = host_copy<std::uint16_t>(made.g, count);
  const auto A_log = host_copy<float>(made.A_log, p.HV), bias = host_copy<float>(made.dt_bias, p.HV * p.K);
  const auto decays = host_copy<float>(made.log_decay, count), sums = host_copy<float>(made.sums, count);
  const bool parametric = p.A_log != nullptr;
  const auto near = [](double x, double exact) { return std::fabs(x - exact) <= 5e-6 * std::fabs(exact) + 1e-30; };
  for (std::int64_t b = 0; b < p.B; ++b)
    for (std::int64_t lane = 0; lane < p.HV * p.K; ++lane) {
      double sum = 0;
      for (std::int64_t t = 0; t < p.T; ++t) {
        const auto e = static_cast<std::size_t>((b * p.T + t) * p.HV * p.K + lane);
        const double x = std::bit_cast<float>(std::uint32_t{g[e]} << 16);
        const double y = x + (parametric ? double{bias[static_cast<std::size_t>(lane)]} : 0.0);
        const double rate = parametric ? std::exp(double{A_log[static_cast<std::size_t>(lane / p.K)]}) : 1.0;
        const double exact = p.gate == KDACHECK_CUDA_LOG_DECAY  ? x
                             : p.gate == KDACHECK_CUDA_SOFTPLUS ? -rate * std::log1p(std::exp(y))
                             : p.gate == KDACHECK_CUDA_BOUNDED  ? p.lower_bound / (1 + std::exp(-rate * y))
                                                                : -std::log1p(std::exp(-x));
        sum = t % p.chunk == 0 ? exact : sum + exact;
        // Given logarithms have both signs here: their sum may cancel.
        const bool good =
            near(decays[e], exact) && (p.gate == KDACHECK_CUDA_LOG_DECAY ? std::fabs(sums[e] - sum) <= 1e-4 : near(sums[e], sum));
        if (!good) return false;
      }
    }
  return true;
}

} // namespace

bool check_gates_alone(nlohmann::json& report) {
  Notes note(report);
  const char* what = "the gate alone gives what double gives";
  const std::vector<std::pair<int, const char*>> gates{{KDACHECK_CUDA_LOG_DECAY, "given"},
                                                       {KDACHECK_CUDA_SOFTPLUS, "softplus"},
                                                       {KDACHECK_CUDA_BOUNDED, "bounded"},
                                                       {KDACHECK_CUDA_SIGMOID, "sigmoid"}};
  for (const auto& [gate, name] : gates)
    note(what, name, agrees(GateCase(2, 1000, 3, 128, gate, 7)) && agrees(GateCase(1, 37, 5, 40, gate, 8)));
  GateCase wrong(1, 8, 1, 16, KDACHECK_CUDA_BOUNDED, 9);
  wrong.call.chunk = 0;
  const bool refused = kdacheck_cuda_gates(&wrong.call, nullptr).status == KDACHECK_CUDA_BAD_SHAPE;
  require(cudaDeviceSynchronize(), "gates");
  const auto left = host_copy<std::uint32_t>(wrong.sums, 8 * 16);
  note("a refused call of the gate writes nothing", "bounded", refused && left.front() == 0xffffffffu && left.back() == 0xffffffffu);
  return note.all_good();
}

DeviceGates make_gates(std::int64_t T, std::int64_t HV) {
  auto made = std::make_shared<GateCase>(1, T, HV, 128, KDACHECK_CUDA_BOUNDED, 11);
  return {made, made->call};
}

} // namespace kdacheck::cuda
