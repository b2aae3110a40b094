#include "timed.hpp"

#include "../../../reference/number_format.hpp"

#include <cmath>
#include <cstring>
#include <thread>

namespace kdacheck::cuda {
namespace {

/// Rows of one head, of a dense tensor [B,T,heads,channels].
std::vector<unsigned char> head_of(const void* from, std::size_t element, std::int64_t n, std::int64_t T, std::int64_t heads,
                                   std::int64_t head, std::int64_t channels) {
  const std::size_t row = static_cast<std::size_t>(channels) * element;
  std::vector<unsigned char> host(row * static_cast<std::size_t>(T));
  const auto* first = static_cast<const unsigned char*>(from) + static_cast<std::size_t>(n * T * heads + head) * row;
  require(cudaMemcpy2D(host.data(), row, first, row * static_cast<std::size_t>(heads), row, static_cast<std::size_t>(T),
                       cudaMemcpyDeviceToHost),
          "copy");
  return host;
}

/// That head as a problem of its own, in host memory.
struct HostHead {
  std::vector<std::vector<unsigned char>> memory;
  Inputs in;

  HostHead(const DeviceProblem& made, std::int64_t n, std::int64_t head) {
    const kdacheck_cuda_problem& p = made.problem;
    const std::int64_t key_head = head / (p.HV / p.H);
    in.shape = {.B = 1, .T = p.T, .H = 1, .HV = 1, .K = p.K, .V = p.V};
    in.options = {.rule = p.rule == KDACHECK_CUDA_DPLR ? Rule::dplr : Rule::kda,
                  .gate = GateForm::bounded,
                  .lower_bound = p.lower_bound,
                  .beta = BetaForm::sigmoid,
                  .l2norm = p.l2norm != 0,
                  .scale = p.scale};
    const auto put = [&](Input input, std::vector<unsigned char> bytes, Format format, std::array<std::int64_t, 4> shape) {
      memory.push_back(std::move(bytes));
      in[input] = {memory.back().data(), format, shape, contiguous_strides(shape)};
    };
    const auto rows = [&](Input input, const kdacheck_cuda_tensor& tensor, std::int64_t heads, std::int64_t of_head,
                          std::int64_t channels) {
      if (tensor.data != nullptr)
        put(input, head_of(tensor.data, 2, n, p.T, heads, of_head, channels), Format::bf16, {1, p.T, 1, channels});
    };
    rows(Input::q, p.q, p.H, key_head, p.K), rows(Input::k, p.k, p.H, key_head, p.K), rows(Input::v, p.v, p.HV, head, p.V);
    rows(Input::g, p.g, p.HV, head, p.K), rows(Input::a, p.a, p.HV, head, p.K), rows(Input::b, p.b, p.HV, head, p.K);
    rows(Input::beta, p.beta, p.HV, head, 1);
    put(Input::A_log, head_of(p.A_log, 4, 0, 1, p.HV, head, 1), Format::fp32, {1, 1, 1, 1});
    put(Input::dt_bias, head_of(p.dt_bias, 4, 0, 1, p.HV, head, p.K), Format::fp32, {1, p.K, 1, 1});
    if (p.state != nullptr) put(Input::initial_state, head_of(p.state, 4, n, 1, p.HV, head, p.K * p.V), Format::fp32, {1, 1, p.K, p.V});
  }
};

double relative(double difference, double norm) { return std::sqrt(difference / std::fmax(norm, 1e-300)); }

} // namespace

std::vector<TimedCase> forward_cases() {
  return {{"B1 T8192 H96", 1, 8192, 96, 1.00, 1.30},
          {"B1 T8192 H32", 1, 8192, 32, 0.60},
          {"B1 T8192 H4", 1, 8192, 4, 0.32},
          {"B8 T1024 H32", 8, 1024, 32, 0.40},
          {"B1 T512 H32", 1, 512, 32, 0.085}};
}

std::vector<TimedCase> general_cases() {
  return {{"B1 T8192 H96", 1, 8192, 96, 2.0},
          {"B1 T8192 H32", 1, 8192, 32, 0},
          {"B1 T8192 H16", 1, 8192, 16, 0},
          {"B8 T1024 H32", 8, 1024, 32, 0}};
}

std::vector<TimedCase> decode_cases() {
  return {{"decode B1 H32", 1, 1, 32, 0},
          {"decode B64 H32", 64, 1, 32, 0.85},
          {"decode B256 H32", 256, 1, 32, 0.85},
          {"decode B64 H32 T4", 64, 4, 32, 0}};
}

std::vector<SampledHead> sampled_truth(const DeviceProblem& made) {
  std::vector<SampledHead> heads{{0, 0, {}}, {made.problem.B - 1, made.problem.HV - 1, {}}};
  require(cudaDeviceSynchronize(), "run");
  std::vector<std::thread> threads;
  for (SampledHead& sampled : heads) {
    auto alone = std::make_shared<HostHead>(made, sampled.n, sampled.head);
    threads.emplace_back([&sampled, alone] { sampled.exact = recurrence_fp64(alone->in, 0, 0); });
  }
  for (auto& thread : threads) thread.join();
  return heads;
}

Errors sampled_errors(const DeviceProblem& made, const std::vector<SampledHead>& heads) {
  const kdacheck_cuda_problem& p = made.problem;
  require(cudaDeviceSynchronize(), "run");
  double sums[4] = {};
  const auto add = [&](double* sum, double x, double exact) { sum[0] += (x - exact) * (x - exact), sum[1] += exact * exact; };
  for (const SampledHead& sampled : heads) {
    const auto o = head_of(p.o.data, 2, sampled.n, p.T, p.HV, sampled.head, p.V);
    const auto state = head_of(p.state != nullptr ? p.state : p.final_state, 4, sampled.n, 1, p.HV, sampled.head, p.K * p.V);
    for (std::size_t e = 0; e < sampled.exact.o.size(); ++e) {
      std::uint16_t bits;
      std::memcpy(&bits, &o[2 * e], 2);
      add(sums, std::bit_cast<float>(std::uint32_t{bits} << 16), sampled.exact.o[e]);
    }
    for (std::size_t e = 0; e < sampled.exact.state.size(); ++e) {
      float x;
      std::memcpy(&x, &state[4 * e], 4);
      add(sums + 2, x, sampled.exact.state[e]);
    }
  }
  return {relative(sums[0], sums[1]), relative(sums[2], sums[3])};
}

} // namespace kdacheck::cuda
