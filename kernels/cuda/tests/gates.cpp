// The gate alone: what is refused, and what the emulated kernel gives.

#include "../alone/gates.cuh"
#include "../host/check.hpp"
#include "owned.hpp"

#include <catch2/catch.hpp>
#include <random>
#include <string>

using namespace kdacheck;
using namespace kdacheck::cuda::testing;

namespace {

/// A call with its tensors.
struct Made {
  Owned g, A_log, dt_bias, log_decay, sums;
  std::vector<std::int64_t> lengths;
  kdacheck_cuda_gates_call call{};

  Made(std::int64_t B, std::int64_t T, std::int64_t HV, std::int64_t K, int gate, std::vector<std::int64_t> cu_seqlens = {},
       Format stored_g = Format::bf16)
      : g(stored_g, {B, T, HV, K}), A_log(Format::fp32, {HV, 1, 1, 1}), dt_bias(Format::fp32, {HV, K, 1, 1}),
        log_decay(Format::fp32, {B, T, HV, K}), sums(Format::fp32, {B, T, HV, K}), lengths(std::move(cu_seqlens)) {
    std::mt19937 engine(3);
    std::normal_distribution<float> normal;
    g.fill([&] { return gate == KDACHECK_CUDA_LOG_DECAY ? -std::fabs(normal(engine)) : 3 * normal(engine); });
    for (Owned* parameter : {&A_log, &dt_bias}) parameter->fill([&] { return 0.5f * normal(engine); });
    call.B = B, call.T = T, call.HV = HV, call.K = K, call.gate = gate, call.lower_bound = -5, call.chunk = 16;
    const auto tensor = [](const Owned& of) { return kdacheck_cuda_tensor{of.view.data, static_cast<int>(stored(of.view.format)), {}}; };
    call.g = tensor(g), call.log_decay = tensor(log_decay), call.sums = tensor(sums);
    if (gate == KDACHECK_CUDA_SOFTPLUS || gate == KDACHECK_CUDA_BOUNDED)
      call.A_log = static_cast<const float*>(A_log.view.data), call.dt_bias = static_cast<const float*>(dt_bias.view.data);
    if (!lengths.empty())
      call.cu_seqlens = call.cu_seqlens_host = lengths.data(), call.sequences = static_cast<std::int64_t>(lengths.size()) - 1;
  }

  void run() const {
    const cuda::CheckedGates checked = cuda::check_gates(&call);
    REQUIRE(std::string(checked.result.text).empty());
    REQUIRE(checked.result.status == KDACHECK_CUDA_OK);
    const cuda::GateArguments& args = checked.args;
    for (unsigned block = 0; block < static_cast<unsigned>(args.slots * args.call.HV); ++block)
      cuda::simt::run_cluster(block, 1, static_cast<unsigned>((call.K + 31) / 32 * 32), 0, [&] { cuda::gates_block(args); });
  }

  double exact(std::int64_t e) const {
    const double x = load(g.view, e);
    const auto head = e / call.K % call.HV, c = e % call.K;
    const double rate = call.A_log == nullptr ? 1 : std::exp(static_cast<double>(call.A_log[head]));
    const double y = x + (call.dt_bias == nullptr ? 0.0 : double{call.dt_bias[head * call.K + c]});
    switch (call.gate) {
    case KDACHECK_CUDA_LOG_DECAY: return x;
    case KDACHECK_CUDA_SOFTPLUS: return -rate * std::log1p(std::exp(y));
    case KDACHECK_CUDA_BOUNDED: return call.lower_bound / (1 + std::exp(-rate * y));
    default: return -std::log1p(std::exp(-x));
    }
  }
};

/// Every number within what an argument of 20, rounded, makes of an exponential; sums over chunks that begin with each sequence.
void check(const Made& made) {
  made.run();
  const auto& call = made.call;
  const std::vector<std::int64_t> whole{0, call.T}, &lengths = made.lengths.empty() ? whole : made.lengths;
  for (std::int64_t b = 0; b < call.B; ++b)
    for (std::size_t n = 0; n + 1 < lengths.size(); ++n)
      for (std::int64_t lane = 0; lane < call.HV * call.K; ++lane) {
        double sum = 0;
        for (std::int64_t t = lengths[n]; t < lengths[n + 1]; ++t) {
          const std::int64_t e = (b * call.T + t) * call.HV * call.K + lane;
          if ((t - lengths[n]) % call.chunk == 0) sum = 0;
          const double exact = made.exact(e);
          sum += exact;
          INFO("gate " << call.gate << ", token " << t << ", lane " << lane);
          if (call.log_decay.data != nullptr) REQUIRE(std::fabs(load(made.log_decay.view, e) - exact) <= 5e-6 * std::fabs(exact) + 1e-30);
          if (call.sums.data != nullptr) REQUIRE(std::fabs(load(made.sums.view, e) - sum) <= 5e-6 * std::fabs(sum) + 1e-30);
        }
      }
}

} // namespace

TEST_CASE("the gate alone gives the logarithms of decays and their sums over chunks, in every form") {
  for (int gate : {KDACHECK_CUDA_LOG_DECAY, KDACHECK_CUDA_SOFTPLUS, KDACHECK_CUDA_BOUNDED, KDACHECK_CUDA_SIGMOID}) {
    check(Made(2, 37, 2, 40, gate));
    check(Made(1, 21, 3, 8, gate, {}, Format::fp32));
  }
}

TEST_CASE("the gate alone begins chunks with each packed sequence, and writes only what is wanted") {
  Made made(1, 58, 2, 33, KDACHECK_CUDA_BOUNDED, {0, 0, 17, 18, 18, 58});
  made.call.chunk = 11;
  check(made);
  Made sums(1, 20, 1, 16, KDACHECK_CUDA_SIGMOID);
  sums.call.log_decay = {}, sums.call.chunk = 64;
  check(sums);
  CHECK(std::isnan(load(sums.log_decay.view, 0)));
}

TEST_CASE("what the gate alone cannot do is refused with a sentence") {
  const auto refused = [](auto change) {
    Made made(1, 32, 2, 16, KDACHECK_CUDA_BOUNDED, {0, 5, 32});
    change(made);
    const cuda::CheckedGates checked = cuda::check_gates(&made.call);
    CHECK(std::string(checked.result.text).empty() == (checked.result.status == KDACHECK_CUDA_OK));
    return checked.result.status;
  };
  CHECK(refused([](Made&) {}) == KDACHECK_CUDA_OK);
  CHECK(cuda::check_gates(nullptr).result.status == KDACHECK_CUDA_NULL_POINTER);
  CHECK(refused([](Made& m) { m.call.K = 257; }) == KDACHECK_CUDA_BAD_SHAPE);
  CHECK(refused([](Made& m) { m.call.chunk = 0; }) == KDACHECK_CUDA_BAD_SHAPE);
  CHECK(refused([](Made& m) { m.call.gate = KDACHECK_CUDA_NO_GATE; }) == KDACHECK_CUDA_BAD_OPTION);
  CHECK(refused([](Made& m) { m.call.lower_bound = 1; }) == KDACHECK_CUDA_BAD_OPTION);
  CHECK(refused([](Made& m) { m.call.g = {}; }) == KDACHECK_CUDA_NULL_POINTER);
  CHECK(refused([](Made& m) { m.call.A_log = nullptr; }) == KDACHECK_CUDA_NULL_POINTER);
  CHECK(refused([](Made& m) { m.call.gate = KDACHECK_CUDA_SIGMOID; }) == KDACHECK_CUDA_NULL_POINTER);
  CHECK(refused([](Made& m) { m.lengths[1] = 40; }) == KDACHECK_CUDA_BAD_SEQUENCES);
  CHECK(refused([](Made& m) { m.call.sums.stride[0] = 512, m.call.sums.stride[1] = 8, m.call.sums.stride[2] = 16; }) ==
        KDACHECK_CUDA_BAD_LAYOUT);
}
