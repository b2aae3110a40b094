#pragma once
// A correct kernel to wrap faults around: the token recurrence in double, rounded once at the end; any layout and format.

#include "../../kernels/kernel.hpp"

#include <cmath>
#include <vector>

namespace kdacheck::tests {

/// S of one (sequence, head) in double, K-first.
using State = std::vector<double>;

inline float at(const TensorView& view, std::int64_t i, std::int64_t j = 0, std::int64_t l = 0, std::int64_t m = 0) {
  return load(view, view.offset(i, j, l, m));
}

/// Element (row, head, channel) of a [B,T,heads,channels] tensor; row = b T + t.
inline double element(const TensorView& view, std::int64_t row, std::int64_t head, std::int64_t channel) {
  const std::int64_t T = view.shape[1];
  return at(view, row / T, row % T, head, channel);
}

inline void step(const Inputs& in, std::int64_t row, std::int64_t head, State& S) {
  const auto [B, T, H, HV, K, V] = in.shape;
  const std::int64_t group = head / (HV / H);
  const double beta = in.options.rule == Rule::kda ? element(in[Input::beta], row, head, 0) : 1;
  std::vector<double> k(static_cast<std::size_t>(K)), erase(k.size());
  for (std::int64_t c = 0; c < K; ++c) {
    const auto i = static_cast<std::size_t>(c);
    k[i] = element(in[Input::k], row, group, c);
    const double alpha = in[Input::g] ? std::exp(element(in[Input::g], row, head, c)) : 1;
    erase[i] = in.options.rule == Rule::kda ? k[i] : element(in[Input::a], row, head, c);
    for (std::int64_t j = 0; j < V; ++j) {
      if (in.options.rule == Rule::kda) S[static_cast<std::size_t>(c * V + j)] *= alpha;
    }
  }
  for (std::int64_t j = 0; j < V; ++j) {
    double seen = 0;
    for (std::int64_t c = 0; c < K; ++c) {
      const double reader = in.options.rule == Rule::kda ? k[static_cast<std::size_t>(c)] : element(in[Input::b], row, head, c);
      seen += reader * S[static_cast<std::size_t>(c * V + j)];
    }
    const double v = element(in[Input::v], row, head, j);
    for (std::int64_t c = 0; c < K; ++c) {
      const auto i = static_cast<std::size_t>(c);
      double& s = S[static_cast<std::size_t>(c * V + j)];
      if (in.options.rule == Rule::kda)
        s += beta * k[i] * (v - seen);
      else
        s = s * (in[Input::g] ? std::exp(element(in[Input::g], row, head, c)) : 1) - erase[i] * seen + k[i] * v;
    }
  }
}

inline void plain_forward(const Inputs& in, const Outputs& out) {
  const auto [B, T, H, HV, K, V] = in.shape;
  for (std::int64_t n = 0; n < in.N(); ++n) {
    const std::int64_t first = in.cu_seqlens.empty() ? n * T : in.cu_seqlens[static_cast<std::size_t>(n)];
    const std::int64_t last = in.cu_seqlens.empty() ? first + T : in.cu_seqlens[static_cast<std::size_t>(n) + 1];
    for (std::int64_t head = 0; head < HV; ++head) {
      State S(static_cast<std::size_t>(K * V), 0.0);
      for (std::int64_t c = 0; c < K && in[Input::initial_state]; ++c)
        for (std::int64_t j = 0; j < V; ++j) S[static_cast<std::size_t>(c * V + j)] = at(in[Input::initial_state], n, head, c, j);
      for (std::int64_t row = first; row < last; ++row) {
        step(in, row, head, S);
        for (std::int64_t j = 0; j < V; ++j) {
          double sum = 0;
          for (std::int64_t c = 0; c < K; ++c)
            sum += S[static_cast<std::size_t>(c * V + j)] * in.options.scale * element(in[Input::q], row, head / (HV / H), c);
          store(out.o, out.o.offset(row / T, row % T, head, j), static_cast<float>(sum));
        }
      }
      for (std::int64_t c = 0; c < K && out.final_state; ++c)
        for (std::int64_t j = 0; j < V; ++j)
          store(out.final_state, out.final_state.offset(n, head, c, j), static_cast<float>(S[static_cast<std::size_t>(c * V + j)]));
    }
  }
}

/// Contract text: everything fp32, any order.
inline Kernel plain_recurrence(Contract contract = {}) {
  contract.chunk = 1;
  contract.order = Order::recurrence;
  contract.strided = true;
  return {.name = "plain",
          .summary = "token recurrence in double",
          .contract = contract,
          .workspace_bytes = [](const Inputs&, bool) { return std::size_t{0}; },
          .forward = [](const Inputs& in, const Outputs& out, std::span<std::byte>) { plain_forward(in, out); },
          .backward = {}};
}

} // namespace kdacheck::tests
