#include "chunkwise_module.hpp"

#include "masked_module.hpp"

#include <algorithm>
#include <fmt/core.h>

namespace kdacheck::modules {
namespace {

CoreTokens tokens_of(const ChunkwiseSizes& s, const ModuleCall& call) {
  return {.H = s.H,
          .HV = s.HV,
          .K = s.K,
          .V = s.V,
          .scale = s.scale,
          .normalise = s.normalise,
          .cu_seqlens = call.cu_seqlens,
          .q = tensor_named(call.inputs, "q").values,
          .k = tensor_named(call.inputs, "k").values,
          .v = tensor_named(call.inputs, "v").values,
          .log_decay = tensor_named(call.inputs, "log_decay").values,
          .beta = tensor_named(call.inputs, "beta").values,
          .state = call.states.empty() ? std::span<const float>{} : tensor_named(call.states, "memory").values};
}

NamedTensor memory(const ChunkwiseSizes& s, const ModuleCall& call, std::vector<float> values) {
  return {"memory", {call.sequences(), s.HV, s.K, s.V}, std::move(values)};
}

std::string summary(const ChunkwiseSizes& s) { return fmt::format("C={} H={} HV={} K={} V={}", s.C, s.H, s.HV, s.K, s.V); }

} // namespace

Module chunkwise_module(const ChunkwiseSizes& s) {
  Module module{"ChunkwiseKDA", summary(s), {}, {}};
  module.forward = [s](const ModuleCall& call) -> ModuleResult {
    CoreResult out = chunkwise_kda(s.C, tokens_of(s, call));
    return {{{"o", {call.rows(), s.HV, s.V}, std::move(out.o)}}, {memory(s, call, std::move(out.state))}};
  };
  module.backward = [s](const ModuleCall& call, const ModuleCotangents& d) -> ModuleGradients {
    const NamedTensor d_o = d.outputs.empty() ? zeros("o", {call.rows(), s.HV, s.V}) : tensor_named(d.outputs, "o");
    CoreGradients g = chunkwise_kda_backward(s.C, tokens_of(s, call), d_o.values,
                                             d.states.empty() ? std::span<const float>{} : tensor_named(d.states, "memory").values);
    ModuleGradients result;
    const auto put = [&](const char* name, std::vector<float>& values) {
      result.inputs.push_back({name, tensor_named(call.inputs, name).shape, std::move(values)});
    };
    put("q", g.q), put("k", g.k), put("v", g.v), put("log_decay", g.log_decay), put("beta", g.beta);
    if (!call.states.empty()) result.states.push_back(memory(s, call, std::move(g.state)));
    return result;
  };
  return masked(module);
}

Module chunk_parts_module(const ChunkwiseSizes& s) {
  Module module{"ChunkwiseKDA.parts", summary(s), {}, {}};
  module.forward = [s](const ModuleCall& call) -> ModuleResult {
    const CoreTokens tokens = tokens_of(s, call);
    const std::int64_t R = call.rows();
    NamedTensor G = zeros("G", {R, s.HV, s.K}), Akk = zeros("Akk", {R, s.HV, s.C}), Aqk = zeros("Aqk", Akk.shape);
    NamedTensor W = zeros("W", {R, s.HV, s.K}), U = zeros("U", {R, s.HV, s.V}), inter = zeros("inter", U.shape),
                intra = zeros("intra", U.shape);
    NamedTensor last = memory(s, call,
                              call.states.empty() ? std::vector<float>(static_cast<std::size_t>(call.sequences() * s.HV * s.K * s.V), 0.0f)
                                                  : tensor_named(call.states, "memory").values);
    for (std::int64_t n = 0; n < call.sequences(); ++n)
      for (std::int64_t head = 0; head < s.HV; ++head)
        for (const ChunkParts& part : chunk_parts(s.C, tokens, n, head)) {
          const std::int64_t row = call.cu_seqlens[static_cast<std::size_t>(n)] + part.first;
          const auto put = [&](NamedTensor& to, const std::vector<float>& from, std::int64_t width) {
            for (std::int64_t i = 0; i < part.n; ++i)
              std::copy_n(from.begin() + i * width, width, to.values.begin() + ((row + i) * s.HV + head) * width);
          };
          const auto put_scores = [&](NamedTensor& to, const std::vector<float>& from) {
            for (std::int64_t i = 0; i < part.n; ++i)
              std::copy_n(from.begin() + i * part.n, part.n, to.values.begin() + ((row + i) * s.HV + head) * s.C);
          };
          put(G, part.G, s.K), put_scores(Akk, part.Akk), put_scores(Aqk, part.Aqk);
          put(W, part.W, s.K), put(U, part.U, s.V), put(inter, part.inter, s.V), put(intra, part.intra, s.V);
          std::ranges::copy(part.end, last.values.begin() + (n * s.HV + head) * s.K * s.V);
        }
    return {{std::move(G), std::move(Akk), std::move(Aqk), std::move(W), std::move(U), std::move(inter), std::move(intra)},
            {std::move(last)}};
  };
  return masked(module);
}

} // namespace kdacheck::modules
