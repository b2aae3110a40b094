// The transition alone: against double, its bits under other cuts, refusals, and a call to time.

#include "../../../reference/number_format.hpp"
#include "device.hpp"
#include "driver.hpp"
#include "notes.hpp"

#include <cmath>
#include <cstring>

namespace kdacheck::cuda {
namespace {

/// A call on random tensors, bf16 rows and fp32 states.
struct TransitionCase {
  DeviceMemory d, a, b, k, v, state, slot;
  kdacheck_cuda_transition_call call{};

  TransitionCase(std::int64_t B, std::int64_t T, std::int64_t HV, std::int64_t K, std::int64_t V, unsigned seed) {
    const float small = 1 / std::sqrt(static_cast<float>(K));
    const std::int64_t rows = B * T * HV;
    d = random_bf16(rows * K, 0.7f, 0.2f, seed), a = random_bf16(rows * K, 0, small, seed + 1),
    b = random_bf16(rows * K, 0, small, seed + 2);
    k = random_bf16(rows * K, 0, small, seed + 3), v = random_bf16(rows * V, 0, 1, seed + 4);
    state = random_fp32(B * HV * K * V, 0, 1, seed + 5);
    call.B = B, call.T = T, call.HV = HV, call.K = K, call.V = V, call.slots = B;
    const auto tensor = [](const DeviceMemory& of) { return kdacheck_cuda_tensor{of.get(), KDACHECK_CUDA_BF16, {}}; };
    call.d = tensor(d), call.a = tensor(a), call.b = tensor(b), call.k = tensor(k), call.v = tensor(v);
    call.state = static_cast<float*>(state.get());
  }
  std::int64_t states() const { return call.B * call.HV * call.K * call.V; }
};

template <class Number> std::vector<Number> host_copy(const void* from, std::int64_t count) {
  std::vector<Number> copy(static_cast<std::size_t>(count));
  require(cudaMemcpy(copy.data(), from, copy.size() * sizeof(Number), cudaMemcpyDeviceToHost), "copy");
  return copy;
}

std::vector<double> numbers(const kdacheck_cuda_tensor& tensor, std::int64_t count) {
  const auto bits = host_copy<std::uint16_t>(tensor.data, count);
  std::vector<double> all;
  for (std::uint16_t x : bits) all.push_back(std::bit_cast<float>(std::uint32_t{x} << 16));
  return all;
}

/// Whether every element is what double gives, to what the header promises for a step, `steps` times over.
bool agrees(const TransitionCase& made) {
  const auto& p = made.call;
  const std::int64_t rows = p.B * p.T * p.HV;
  const auto d = numbers(p.d, rows * p.K), a = numbers(p.a, rows * p.K), b = numbers(p.b, rows * p.K);
  const auto k = p.k.data != nullptr ? numbers(p.k, rows * p.K) : std::vector<double>{};
  const auto v = p.v.data != nullptr ? numbers(p.v, rows * p.V) : std::vector<double>{};
  const auto before = host_copy<float>(p.state, made.states());
  require(kdacheck_cuda_transition(&p, nullptr));
  require(cudaDeviceSynchronize(), "transition");
  const auto after = host_copy<float>(p.state, made.states());
  const double u = std::ldexp(static_cast<double>(p.K + 4), -24);
  std::vector<double> column(static_cast<std::size_t>(p.K)), error(column.size());
  for (std::int64_t n = 0; n < p.B; ++n)
    for (std::int64_t h = 0; h < p.HV; ++h)
      for (std::int64_t j = 0; j < p.V; ++j) {
        const auto at = [&](std::int64_t c) { return static_cast<std::size_t>(((n * p.HV + h) * p.K + c) * p.V + j); };
        for (std::int64_t c = 0; c < p.K; ++c) column[static_cast<std::size_t>(c)] = before[at(c)], error[static_cast<std::size_t>(c)] = 0;
        for (std::int64_t t = 0; t < p.T; ++t) {
          const std::int64_t row = (n * p.T + t) * p.HV + h;
          double read = 0, size = 0, carried = 0;
          for (std::int64_t c = 0; c < p.K; ++c) {
            const auto place = static_cast<std::size_t>(c);
            const double weight = b[static_cast<std::size_t>(row * p.K + c)];
            read += weight * column[place], size += std::fabs(weight * column[place]), carried += std::fabs(weight) * error[place];
          }
          for (std::int64_t c = 0; c < p.K; ++c) {
            const auto place = static_cast<std::size_t>(c), e = static_cast<std::size_t>(row * p.K + c);
            const double kept = d[e] * column[place], added = k.empty() ? 0 : k[e] * v[static_cast<std::size_t>(row * p.V + j)];
            // What earlier steps erred by is carried on; second-order terms are covered by a tenth more.
            error[place] = std::fabs(d[e]) * error[place] + std::fabs(a[e]) * carried +
                           1.1 * u * (std::fabs(kept) + std::fabs(a[e]) * size + std::fabs(added));
            column[place] = kept - a[e] * read + added;
          }
        }
        for (std::int64_t c = 0; c < p.K; ++c)
          if (const auto place = static_cast<std::size_t>(c); !(std::fabs(after[at(c)] - column[place]) <= error[place] + 1e-45))
            return false;
      }
  return true;
}

/// One sequence of many gives, alone and token by token, the same bits.
bool cuts_are_invisible() {
  const TransitionCase many(40, 4, 8, 128, 128, 60);
  kdacheck_cuda_transition_call p = many.call;
  const std::int64_t n = 17, one = p.HV * p.K * p.V;
  const DeviceMemory copy = allocate(static_cast<std::size_t>(one) * 4);
  require(cudaMemcpy(copy.get(), p.state + n * one, static_cast<std::size_t>(one) * 4, cudaMemcpyDeviceToDevice), "copy");
  require(kdacheck_cuda_transition(&p, nullptr));
  kdacheck_cuda_transition_call alone = p;
  alone.B = alone.slots = alone.T = 1, alone.state = static_cast<float*>(copy.get());
  for (std::int64_t t = 0; t < p.T; ++t) {
    const std::int64_t row = (n * p.T + t) * p.HV;
    const auto moved = [&](const kdacheck_cuda_tensor& of, std::int64_t channels) {
      return kdacheck_cuda_tensor{static_cast<std::uint16_t*>(of.data) + row * channels, of.format, {}};
    };
    alone.d = moved(p.d, p.K), alone.a = moved(p.a, p.K), alone.b = moved(p.b, p.K), alone.k = moved(p.k, p.K), alone.v = moved(p.v, p.V);
    require(kdacheck_cuda_transition(&alone, nullptr));
  }
  require(cudaDeviceSynchronize(), "transition");
  return host_copy<std::uint32_t>(p.state + n * one, one) == host_copy<std::uint32_t>(copy.get(), one);
}

/// Slots that are negative or outside leave every state alone.
bool respects_slots() {
  TransitionCase made(4, 1, 3, 64, 64, 70);
  const std::vector<std::int32_t> slots{2, -1, 0, 5};
  made.slot = allocate(16);
  require(cudaMemcpy(made.slot.get(), slots.data(), 16, cudaMemcpyHostToDevice), "copy");
  made.call.slot = static_cast<const std::int32_t*>(made.slot.get());
  const auto before = host_copy<std::uint32_t>(made.call.state, made.states());
  require(kdacheck_cuda_transition(&made.call, nullptr));
  require(cudaDeviceSynchronize(), "transition");
  const auto after = host_copy<std::uint32_t>(made.call.state, made.states());
  const std::size_t one = before.size() / 4;
  const auto equal = [&](std::size_t slot) { return std::memcmp(&before[slot * one], &after[slot * one], one * 4) == 0; };
  return !equal(0) && equal(1) && !equal(2) && equal(3);
}

bool refuses() {
  TransitionCase made(2, 1, 2, 32, 16, 80);
  const auto before = host_copy<std::uint32_t>(made.call.state, made.states());
  std::vector<std::uint16_t> host(2 * 2 * 32);
  kdacheck_cuda_transition_call wrong = made.call;
  wrong.a.data = host.data();
  bool good = kdacheck_cuda_transition(&wrong, nullptr).status == KDACHECK_CUDA_NOT_DEVICE_MEMORY;
  wrong = made.call, wrong.T = 9;
  good = good && kdacheck_cuda_transition(&wrong, nullptr).status == KDACHECK_CUDA_BAD_SHAPE;
  good = good && cudaDeviceSynchronize() == cudaSuccess && cudaGetLastError() == cudaSuccess;
  return good && host_copy<std::uint32_t>(made.call.state, made.states()) == before;
}

} // namespace

bool check_transition_alone(nlohmann::json& report) {
  Notes note(report);
  const char* what = "the transition alone gives what double gives";
  note(what, "few heads", agrees(TransitionCase(2, 1, 3, 128, 128, 50)) && agrees(TransitionCase(1, 8, 5, 40, 36, 51)));
  note(what, "many heads", agrees(TransitionCase(20, 1, 6, 64, 128, 52)) && agrees(TransitionCase(25, 3, 4, 200, 68, 53)));
  TransitionCase bare(20, 2, 6, 100, 64, 54);
  bare.call.k = bare.call.v = {};
  note(what, "nothing added", agrees(bare));
  note("cuts of batch and tokens are invisible to the transition", "128", cuts_are_invisible());
  note("negative slots are skipped by the transition", "64", respects_slots());
  note("a refused call of the transition writes nothing", "32", refuses());
  return note.all_good();
}

DeviceTransition make_transition(std::int64_t B, std::int64_t HV) {
  auto made = std::make_shared<TransitionCase>(B, 1, HV, 128, 128, 90);
  return {made, made->call};
}

} // namespace kdacheck::cuda
