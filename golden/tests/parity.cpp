// flash-linear-attention's layer and stack on the weights of golden/parity agree with ours: both within what their precision
// allows about the same exact numbers.

#include "../../kernels/modules/hybrid_module.hpp"
#include "../../kernels/modules/kda_layer_module.hpp"
#include "../../properties/modules/hybrid_oracle.hpp"
#include "../../properties/modules/in_arithmetic.hpp"
#include "../../properties/modules/kda_layer_oracle.hpp"
#include "../../properties/modules/mixed_precision.hpp"
#include "../../properties/modules/module_budget.hpp"
#include "../../reference/safetensors.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <fmt/core.h>

using namespace kdacheck;
using namespace kdacheck::modules;

namespace {

constexpr std::int64_t chunk = 64, capacity = 70;

/// In which arithmetic a recording was made. Their softplus loses digits of small decays (mixed_precision.hpp): fp32 allows
/// log1p, fp32_as_theirs what they do.
/// Their products of fp32 matrices keep 22 bits of each operand, less than fp32, and are held to fp32 all the same.
enum class Made { fp32, fp32_as_theirs, bf16 };
constexpr int bf16_bits = 8;
using OfRoundedSums = PerturbedTo<24, SoftplusBy::rounded_sum>;

/// oracle.template operator()<N>() in the arithmetic that is asked for, perturbed as the recording's.
template <class Oracle> ExactTensors as_made(Made made, const ModuleArithmetic& arithmetic, Oracle oracle) {
  const bool on_grid = arithmetic.kind == ModuleArithmetic::Kind::grid;
  if (made == Made::fp32 || (!on_grid && arithmetic.kind != ModuleArithmetic::Kind::independent)) return in_arithmetic(arithmetic, oracle);
  if (made == Made::bf16) {
    PerturbedTo<bf16_bits>::start(on_grid, arithmetic.seed);
    return oracle.template operator()<PerturbedTo<bf16_bits>>();
  }
  OfRoundedSums::start(on_grid, arithmetic.seed);
  return oracle.template operator()<OfRoundedSums>();
}

const Kernel& our_kernel() { return *std::ranges::find(built_in_kernels(), std::string("cpu.chunk64.fp32"), &Kernel::name); }

std::int64_t size_of(const SafetensorsFile& file, const std::string& name) { return std::stoll(file.table().metadata.at(name)); }

/// The stored tensor in the place of the one of that shape; a missing or misshapen one fails the test.
NamedTensor stored_like(const SafetensorsFile& file, const std::string& prefix, NamedTensor like) {
  const StoredTensor* found = file.table().find(prefix + like.name);
  INFO(prefix << like.name);
  REQUIRE(found);
  REQUIRE(found->shape == like.shape);
  const std::vector<double> values = doubles(*found);
  like.values.assign(values.begin(), values.end());
  return like;
}
NamedTensors stored_like(const SafetensorsFile& file, const std::string& prefix, NamedTensors like) {
  for (NamedTensor& tensor : like) tensor = stored_like(file, prefix, std::move(tensor));
  return like;
}

/// A recorded call, and what is true of it in the recording's precision.
struct Parity {
  SafetensorsFile file;
  ModuleCase c;

  ModuleResult recorded(const std::string& output, const std::string& state) const {
    const ModuleResult like = c.module.forward(c.call);
    return {stored_like(file, output, like.outputs), state.empty() ? NamedTensors{} : stored_like(file, state, like.states)};
  }
  ModuleGradients recorded_gradients() const {
    return {stored_like(file, "gradient.", c.call.inputs), stored_like(file, "gradient.", c.call.parameters), {}};
  }
};

std::filesystem::path parity_file(const std::string& name) { return std::filesystem::path(KDACHECK_GOLDEN) / "parity" / name; }

/// first, last: orders of evaluation (0 the recurrence, 1 chunks) that the recorded call may have used.
Parity layer_parity(Made made, int first = 0, int last = 1) {
  const bool bf16 = made == Made::bf16;
  Parity parity{SafetensorsFile(parity_file(bf16 ? "KimiDeltaAttention.bf16.safetensors" : "KimiDeltaAttention.fp32.safetensors")), {}};
  const SafetensorsFile& file = parity.file;
  KdaLayer layer{
      .D = size_of(file, "D"), .H = size_of(file, "H"), .HV = size_of(file, "H"), .K = size_of(file, "K"), .V = size_of(file, "V")};
  layer.gate_rank = layer.output_gate_rank = layer.V;
  const std::int64_t T = file.table().find("call.x")->shape.at(0);
  ModuleCase& c = parity.c;
  c.module = kda_layer_module(layer, our_kernel());
  c.call.cu_seqlens = {0, T};
  c.call.inputs = stored_like(file, "call.", NamedTensors{zeros("x", {T, layer.D})});
  c.call.parameters = stored_like(file, "parameter.", named_parameters(layer, initial_parameters(layer, 0)));
  if (!bf16) c.cotangents.outputs = stored_like(file, "cotangent.", NamedTensors{zeros("y", {T, layer.D})});
  c.oracle = {.orders = last - first + 1,
              .evaluate = [=](const ModuleCall& call, const ModuleCotangents* d, const ModuleArithmetic& arithmetic) {
                const std::int64_t by = first + arithmetic.order == 0 ? 0 : chunk;
                return as_made(made, arithmetic, [&]<class N>() { return layer_oracle<N>(layer, call, d, by); });
              }};
  return parity;
}

Parity stack_parity(Made made) {
  Parity parity{SafetensorsFile(parity_file("HybridAttention.fp32.safetensors")), {}};
  const SafetensorsFile& file = parity.file;
  HybridStack stack;
  stack.kda = {
      .D = size_of(file, "D"), .H = size_of(file, "H"), .HV = size_of(file, "H"), .K = size_of(file, "K"), .V = size_of(file, "V")};
  stack.kda.gate_rank = stack.kda.output_gate_rank = stack.kda.V;
  stack.mla = {.D = stack.kda.D,
               .H = stack.kda.H,
               .K = stack.kda.K,
               .V = stack.kda.V,
               .K_shared = size_of(file, "K_shared"),
               .rank = size_of(file, "rank")};
  const std::int64_t T = file.table().find("call.x")->shape.at(0);
  ModuleCase& c = parity.c;
  c.module = hybrid_module(stack, our_kernel(), capacity);
  c.call.cu_seqlens = {0, T};
  c.call.inputs = stored_like(file, "call.", NamedTensors{zeros("x", {T, stack.D()})});
  c.call.parameters = stored_like(file, "parameter.", named_parameters(stack, initial_parameters(stack, 0)));
  c.cotangents.outputs = stored_like(file, "cotangent.", NamedTensors{zeros("y", {T, stack.D()})});
  c.oracle = {.orders = 2, .evaluate = [=](const ModuleCall& call, const ModuleCotangents* d, const ModuleArithmetic& arithmetic) {
                ExactTensors exact = as_made(made, arithmetic, [&]<class N>() {
                  return hybrid_oracle<N>(stack, capacity, call, d, arithmetic.order == 0 ? 0 : chunk);
                });
                exact.states.clear(); // the recording has none
                return exact;
              }};
  return parity;
}

void check_passes(const std::string& what, const Finding& finding) {
  INFO(what << ": " << name(finding.verdict) << " at " << finding.bound_util << " of its bound. " << finding.detail);
  CHECK(finding.verdict == Verdict::passed);
}

} // namespace

TEST_CASE("flash-linear-attention's layer in fp32 is as near to the oracle as fp32 with its softplus allows") {
  for (const auto& [what, output, state, order] :
       {std::tuple{"chunks", "output.", "next_state.", 1}, {"recurrence", "recurrent.", "recurrent.", 0}}) {
    const Parity parity = layer_parity(Made::fp32_as_theirs, order, order);
    check_passes(what, judge_module(parity.c, parity.recorded(output, state), 1));
  }
  const Parity parity = layer_parity(Made::fp32_as_theirs);
  check_passes("chunks, then token by token", judge_module(parity.c, parity.recorded("decoded.", "decoded."), 1));
  check_passes("gradients", judge_module_gradients(parity.c, parity.recorded_gradients(), 1));
}

TEST_CASE("flash-linear-attention's softplus costs its state more than fp32 need cost") {
  const Parity parity = layer_parity(Made::fp32, 1, 1);
  const Finding finding = judge_module(parity.c, parity.recorded("output.", "next_state."), 1);
  CHECK(finding.verdict == Verdict::failed_statistical);
  CHECK((finding.place && finding.place->tensor == "state memory"));
}

TEST_CASE("flash-linear-attention's layer under autocast to bf16 is as near to the oracle as bf16 allows, and further than fp32 does") {
  for (const auto& [what, output, state, order] :
       {std::tuple{"chunks", "output.", "next_state.", 1}, {"recurrence", "recurrent.", "recurrent.", 0}}) {
    const Parity parity = layer_parity(Made::bf16, order, order);
    check_passes(what, judge_module(parity.c, parity.recorded(output, state), 1));
  }
  const Parity parity = layer_parity(Made::bf16), strict = layer_parity(Made::fp32_as_theirs);
  check_passes("chunks, then token by token", judge_module(parity.c, parity.recorded("decoded.", "decoded."), 1));
  CHECK(judge_module(strict.c, parity.recorded("output.", "next_state."), 1).verdict == Verdict::failed_statistical);
}

TEST_CASE("our layer on the same weights is as near to the oracle as fp32 allows") {
  const Parity parity = layer_parity(Made::fp32);
  check_passes("outputs", judge_module(parity.c, parity.c.module.forward(parity.c.call), 1));
  check_passes("gradients", judge_module_gradients(parity.c, parity.c.module.backward(parity.c.call, parity.c.cotangents), 1));
}

TEST_CASE("three KDA blocks and a latent attention, theirs and ours, are as near to the oracle as their arithmetic allows") {
  const Parity theirs = stack_parity(Made::fp32_as_theirs), ours = stack_parity(Made::fp32);
  check_passes("theirs", judge_module(theirs.c, theirs.recorded("output.", ""), 1));
  check_passes("their gradients", judge_module_gradients(theirs.c, theirs.recorded_gradients(), 1));
  check_passes("ours", judge_module(ours.c, {ours.c.module.forward(ours.c.call).outputs, {}}, 1));
  check_passes("our gradients", judge_module_gradients(ours.c, ours.c.module.backward(ours.c.call, ours.c.cotangents), 1));
}

TEST_CASE("a weight turned, a sign changed or a sequence of channels swapped is seen in either precision") {
  using Change = void (*)(NamedTensors&);
  const std::pair<const char*, Change> changes[] = {
      {"q_proj transposed",
       [](NamedTensors& p) {
         NamedTensor& q = tensor_named(p, "q_proj");
         const auto n = static_cast<std::size_t>(q.shape[0]);
         for (std::size_t i = 0; i < n; ++i)
           for (std::size_t j = 0; j < i; ++j) std::swap(q.values[i * n + j], q.values[j * n + i]);
       }},
      {"gate's sign changed",
       [](NamedTensors& p) {
         for (float& x : tensor_named(p, "f_up").values) x = -x;
       }},
      {"convolution backwards",
       [](NamedTensors& p) {
         NamedTensor& conv = tensor_named(p, "k_conv");
         for (auto row = conv.values.begin(); row != conv.values.end(); row += conv.shape[1]) std::reverse(row, row + conv.shape[1]);
       }},
      {"norm's weights backwards", [](NamedTensors& p) { std::ranges::reverse(tensor_named(p, "o_norm").values); }},
      {"output gate's bias left out", [](NamedTensors& p) { std::ranges::fill(tensor_named(p, "g_bias").values, 0.0f); }},
  };
  for (const Made made : {Made::fp32_as_theirs, Made::bf16})
    for (const auto& [what, change] : changes) {
      INFO(what << (made == Made::bf16 ? ", bf16" : ", fp32"));
      Parity parity = layer_parity(made, 1, 1);
      const ModuleResult recorded = parity.recorded("output.", "next_state.");
      change(parity.c.call.parameters);
      CHECK(judge_module(parity.c, recorded, 1).verdict == Verdict::failed_statistical);
    }
}

TEST_CASE("a change of any mixer's weights in the stack, or of its norms, is seen") {
  using Change = void (*)(NamedTensors&);
  const std::pair<const char*, Change> changes[] = {
      {"the first block's gate with its sign changed",
       [](NamedTensors& p) {
         for (float& x : tensor_named(p, "layers.0.f_up").values) x = -x;
       }},
      {"the third block's output projection halved",
       [](NamedTensors& p) {
         for (float& x : tensor_named(p, "layers.2.o_proj").values) x /= 2;
       }},
      {"the second block's norm a thousandth larger",
       [](NamedTensors& p) {
         for (float& x : tensor_named(p, "layers.1.norm").values) x *= 1.001f;
       }},
      {"keys and values of the latent attention exchanged from the end",
       [](NamedTensors& p) { std::ranges::reverse(tensor_named(p, "layers.3.kv_up").values); }},
      {"the latent attention's shared key without one channel",
       [](NamedTensors& p) {
         NamedTensor& shared = tensor_named(p, "layers.3.k_shared");
         for (std::size_t i = 0; i < shared.values.size(); i += static_cast<std::size_t>(shared.shape[1])) shared.values[i] = 0;
       }},
  };
  for (const auto& [what, change] : changes) {
    INFO(what);
    Parity parity = stack_parity(Made::fp32_as_theirs);
    const ModuleResult recorded = parity.recorded("output.", "");
    change(parity.c.call.parameters);
    CHECK(judge_module(parity.c, recorded, 1).verdict == Verdict::failed_statistical);
  }
}
