// What the laws of properties/modules do not see: kernels of every kind in the layer, calls that are refused, initial bits.

#include "../kda_layer.hpp"
#include "bits.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

using namespace kdacheck;
using namespace kdacheck::modules;
using Catch::Matchers::Contains;

namespace {

const KdaLayer layer{.D = 24, .H = 2, .HV = 4, .K = 16, .V = 32, .gate_rank = 8, .output_gate_rank = 8};

std::vector<float> wave(std::int64_t count) {
  std::vector<float> x(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::sin(0.7f * static_cast<float>(i * i % 101));
  return x;
}

const Kernel& kernel_named(const std::string& name) { return *std::ranges::find(built_in_kernels(), name, &Kernel::name); }

bool all_finite(const std::vector<float>& values) {
  return std::ranges::all_of(values, [](float x) { return std::isfinite(x); });
}

} // namespace

TEST_CASE("every kernel of KDA can be plugged in, forward and backward, and others are refused by name") {
  const KdaLayerParameters p = initial_parameters(layer, 5);
  const std::vector<float> x = wave(2 * 40 * layer.D);
  const KdaLayerInput input{.B = 2, .T = 40, .x = x};
  int plugged = 0, refused = 0;
  for (const Kernel& kernel : built_in_kernels()) {
    if (!kernel.name.starts_with("cpu.")) continue;
    INFO(kernel.name);
    if (kernel.contract.rules == std::vector{Rule::dplr}) {
      CHECK_THROWS_WITH(kda_layer(layer, p, kernel, input), Contains(kernel.name) && Contains("does not compute KDA"));
      ++refused;
      continue;
    }
    const KdaLayerOutput out = kda_layer(layer, p, kernel, input);
    CHECK(all_finite(out.y));
    CHECK(out.y.size() == x.size());
    CHECK(out.final_state.memory.size() == 2 * 4 * 16 * 32);
    const KdaLayerGradients d = kda_layer_backward(layer, p, kernel, input, {}, {.y = out.y, .final_state = {}});
    CHECK(all_finite(d.x));
    CHECK(all_finite(d.parameters.A_log));
    ++plugged;
  }
  CHECK(plugged == 15);
  CHECK(refused == 4);
}

TEST_CASE("a call that does not fit is refused with a sentence that names the tensor") {
  KdaLayerParameters p = initial_parameters(layer, 5);
  std::vector<float> x = wave(3 * layer.D);
  const Kernel& kernel = kernel_named("cpu.recurrence.fp32");
  const auto call = [&](KdaLayerInput input, KdaLayerState state = {}) { return kda_layer(layer, p, kernel, input, state); };
  CHECK_THROWS_WITH(call({.B = 1, .T = 4, .x = x}), Contains("x has 72 numbers") && Contains("[B,T,D] needs 96"));
  CHECK_THROWS_WITH(call({.B = 1, .T = 3, .x = x}, {.q_conv = {1}, .k_conv = {}, .v_conv = {}, .memory = {}}), Contains("state of q_conv"));
  CHECK_THROWS_WITH(call({.B = 1, .T = 3, .x = x}, {.q_conv = {}, .k_conv = {}, .v_conv = {}, .memory = {1}}),
                    Contains("the memory has 1"));
  const std::vector<std::int64_t> falling{0, 2, 1, 3};
  CHECK_THROWS_WITH(call({.B = 1, .T = 3, .x = x, .cu_seqlens = falling}), Contains("cu_seqlens must rise"));
  const std::vector<std::uint8_t> mask{1, 1};
  CHECK_THROWS_WITH(call({.B = 1, .T = 3, .x = x, .cu_seqlens = {}, .mask = mask}), Contains("mask has 2 entries"));
  x[5] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH(call({.B = 1, .T = 3, .x = x}), Contains("x holds nan at element 5"));
  p.o_norm.pop_back();
  CHECK_THROWS_WITH(call({.B = 1, .T = 3, .x = std::span<const float>(x).first(0)}),
                    Contains("o_norm has 31 numbers, its shape [32] needs 32"));
  KdaLayer odd = layer;
  odd.HV = 3;
  CHECK_THROWS_WITH(initial_parameters(odd, 1), Contains("HV = 3 is no multiple of H = 2"));
}

TEST_CASE("initial parameters follow from the seed and the tensor's name alone") {
  KdaLayer biased = layer;
  biased.conv_bias = true;
  const KdaLayerParameters one = initial_parameters(layer, 5), same = initial_parameters(biased, 5), other = initial_parameters(layer, 6);
  CHECK(one.o_proj == same.o_proj);
  CHECK(one.q_proj != one.k_proj);
  CHECK(one.q_proj != other.q_proj);
  std::uint64_t bits = bits_of({});
  KdaLayerParameters drawn = one;
  for_each_tensor(layer, drawn, [&](std::string_view name, std::span<const std::int64_t>, std::vector<float>& values) {
    if (name != "A_log") bits = bits_of(values, bits); // that one goes through the C library's logarithm
  });
  CHECK(bits == 0xe62ca71de5814049);
  CHECK(std::ranges::all_of(one.A_log, [](float A) { return A >= 0 && A < std::log(16.0f); }));
}

TEST_CASE("initial parameters fill the intervals that are said of them") {
  const KdaLayer wide{.D = 48, .H = 64, .HV = 64, .K = 8, .V = 4, .gate_rank = 16, .output_gate_rank = 8};
  const KdaLayerParameters p = initial_parameters(wide, 11);
  const auto fills = [](const std::vector<float>& values, double limit) {
    const auto [least, most] = std::ranges::minmax(values);
    CHECK(-limit <= static_cast<double>(least));
    CHECK(static_cast<double>(least) < -0.97 * limit);
    CHECK(0.97 * limit < static_cast<double>(most));
    CHECK(static_cast<double>(most) <= limit);
  };
  fills(p.q_proj, std::sqrt(6.0 / (48 + 64 * 8)));
  fills(p.v_proj, std::sqrt(6.0 / (48 + 64 * 4)));
  fills(p.f_down, std::sqrt(6.0 / (48 + 16)));
  fills(p.o_proj, std::sqrt(6.0 / (64 * 4 + 48)));
  fills(p.k_conv, 0.5);
  const auto [slow, fast] = std::ranges::minmax(p.A_log);
  CHECK(slow >= 0);
  CHECK(std::exp(slow) < 2);
  CHECK(std::exp(fast) > 15);
  CHECK(fast <= std::log(16.0f));
}

TEST_CASE("a call without tokens gives back the state it was given") {
  const KdaLayerParameters p = initial_parameters(layer, 5);
  const KdaLayerState state{.q_conv = wave(3 * 32), .k_conv = wave(3 * 32), .v_conv = wave(3 * 128), .memory = wave(4 * 16 * 32)};
  const KdaLayerOutput out = kda_layer(layer, p, kernel_named("cpu.chunk64.fp32"), {.B = 1, .T = 0, .x = {}}, state);
  CHECK(out.y.empty());
  CHECK(out.final_state.v_conv == state.v_conv);
  CHECK(out.final_state.memory == state.memory);
}

TEST_CASE("tensors of a state that are left out count as zero, and receive no gradient") {
  const KdaLayerParameters p = initial_parameters(layer, 5);
  const Kernel& kernel = kernel_named("cpu.chunk16.fp32");
  constexpr std::int64_t T = 7;
  const std::vector<float> x = wave(2 * T * layer.D), d_y = wave(2 * T * layer.D);
  const KdaLayerInput input{.B = 2, .T = T, .x = x};
  const KdaLayerState full{
      .q_conv = wave(2 * 3 * 32), .k_conv = wave(2 * 3 * 32), .v_conv = wave(2 * 3 * 128), .memory = wave(2 * 4 * 16 * 32)};
  for (auto part : {&KdaLayerState::q_conv, &KdaLayerState::k_conv, &KdaLayerState::v_conv, &KdaLayerState::memory}) {
    KdaLayerState without = full, zero = full;
    (without.*part).clear();
    std::ranges::fill(zero.*part, 0.0f);
    const KdaLayerOutput one = kda_layer(layer, p, kernel, input, without), other = kda_layer(layer, p, kernel, input, zero);
    CHECK(one.y == other.y);
    CHECK((one.final_state.q_conv == other.final_state.q_conv && one.final_state.k_conv == other.final_state.k_conv));
    CHECK((one.final_state.v_conv == other.final_state.v_conv && one.final_state.memory == other.final_state.memory));
    KdaLayerGradients d = kda_layer_backward(layer, p, kernel, input, without, {.y = d_y, .final_state = {}}),
                      e = kda_layer_backward(layer, p, kernel, input, zero, {.y = d_y, .final_state = {}});
    CHECK((d.x == e.x && d.parameters.q_conv == e.parameters.q_conv && d.parameters.v_proj == e.parameters.v_proj));
    CHECK((d.state.*part).empty());
    CHECK_FALSE((e.state.*part).empty());
    (e.state.*part).clear();
    CHECK((d.state.q_conv == e.state.q_conv && d.state.k_conv == e.state.k_conv));
    CHECK((d.state.v_conv == e.state.v_conv && d.state.memory == e.state.memory));
  }
}
