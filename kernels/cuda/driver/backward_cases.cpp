#include "backward_cases.hpp"
#include "../host/recurrence_fp64.hpp"

#include <random>
#include <thread>

namespace kdacheck::cuda {

Backward make_backward(const Case& made, const Contract& contract, const Losses& losses, unsigned seed) {
  Backward back;
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  back.d_o = Owned(contract.output, made.o.view.shape);
  back.d_o.fill([&] { return normal(engine); });
  back.d_final_state = Owned(Format::fp32, made.final_state.view.shape);
  back.d_final_state.fill([&] { return normal(engine); });
  if (losses.d_o) back.cotangents.d_o = back.d_o.view;
  if (losses.d_final_state) back.cotangents.d_final_state = back.d_final_state.view;
  for (Input input : wanted_gradients) {
    const bool state = input == Input::initial_state;
    if (!made.in[input] && !state) continue;
    const bool parameter = state || input == Input::A_log || input == Input::dt_bias;
    back.gradient.emplace(input,
                          Owned(parameter ? Format::fp32 : contract.gradient, state ? made.final_state.view.shape : made.in[input].shape));
  }
  return back;
}

std::map<Input, std::vector<double>> exact_gradients(const Case& made, const Backward& back, bool v_first, double& A_log_square) {
  const Shape& s = made.in.shape;
  const std::int64_t jobs = made.in.N() * s.HV;
  std::vector<HeadGradients> parts(static_cast<std::size_t>(jobs));
  std::vector<std::thread> threads;
  const auto workers = static_cast<std::int64_t>(std::max(1u, std::thread::hardware_concurrency()));
  for (std::int64_t w = 0; w < workers; ++w)
    threads.emplace_back([&, w] {
      for (std::int64_t job = w; job < jobs; job += workers)
        parts[static_cast<std::size_t>(job)] = adjoint_fp64(made.in, back.cotangents, job / s.HV, job % s.HV, v_first);
    });
  for (auto& thread : threads) thread.join();
  std::map<Input, std::vector<double>> exact;
  for (const auto& [input, tensor] : back.gradient) exact[input].assign(static_cast<std::size_t>(tensor.view.elements()), 0.0);
  for (std::int64_t job = 0; job < jobs; ++job) {
    const std::int64_t n = job / s.HV, head = job % s.HV;
    const HeadGradients& d = parts[static_cast<std::size_t>(job)];
    const bool packed = !made.in.cu_seqlens.empty();
    const std::int64_t first = packed ? made.in.cu_seqlens[static_cast<std::size_t>(n)] : 0, b = packed ? 0 : n;
    const auto add = [&](Input input, const std::vector<double>& values, std::int64_t h, std::int64_t channels) {
      if (!exact.contains(input)) return;
      const TensorView& view = back.gradient.at(input).view;
      for (std::size_t e = 0; e < values.size(); ++e)
        exact[input][static_cast<std::size_t>(
            view.offset(b, first + static_cast<std::int64_t>(e) / channels, h, static_cast<std::int64_t>(e) % channels))] += values[e];
    };
    add(Input::q, d.q, head / (s.HV / s.H), s.K), add(Input::k, d.k, head / (s.HV / s.H), s.K), add(Input::v, d.v, head, s.V);
    add(Input::g, d.g, head, s.K), add(Input::beta, d.beta, head, 1), add(Input::a, d.a, head, s.K), add(Input::b, d.b, head, s.K);
    A_log_square += d.A_log_square;
    if (exact.contains(Input::A_log)) exact[Input::A_log][static_cast<std::size_t>(head)] += d.A_log;
    if (exact.contains(Input::dt_bias))
      for (std::size_t c = 0; c < d.dt_bias.size(); ++c) exact[Input::dt_bias][static_cast<std::size_t>(head * s.K) + c] += d.dt_bias[c];
    const TensorView& state = back.gradient.at(Input::initial_state).view;
    for (std::int64_t c = 0; c < s.K; ++c)
      for (std::int64_t j = 0; j < s.V; ++j)
        exact[Input::initial_state][static_cast<std::size_t>(v_first ? state.offset(n, head, j, c) : state.offset(n, head, c, j))] =
            d.initial_state[static_cast<std::size_t>(c * s.V + j)];
  }
  return exact;
}

} // namespace kdacheck::cuda
