#include "../kernels.hpp"
#include "../recurrence_fp64.hpp"
#include "cases.hpp"
#include "driver.hpp"

#include <cmath>
#include <cstdio>
#include <map>
#include <random>
#include <thread>

namespace kdacheck::cuda {
namespace {

constexpr std::array wanted{Input::q, Input::k,    Input::v,     Input::a,       Input::b,
                            Input::g, Input::beta, Input::A_log, Input::dt_bias, Input::initial_state};

/// Which cotangents a case has.
struct Losses {
  const char* name;
  bool d_o, d_final_state;
};

struct Backward {
  Owned d_o, d_final_state;
  std::map<Input, Owned> gradient;
  Cotangents cotangents;
};

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
  for (Input input : wanted) {
    const bool state = input == Input::initial_state;
    if (!made.in[input] && !state) continue;
    const bool parameter = state || input == Input::A_log || input == Input::dt_bias;
    back.gradient.emplace(input,
                          Owned(parameter ? Format::fp32 : contract.gradient, state ? made.final_state.view.shape : made.in[input].shape));
  }
  return back;
}

/// Exact gradients, and the sum of squares of d A_log's terms, in the order of the tensors' elements.
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

/// Sanity, not a verdict of the suite: a wrong kernel is off by 0.1 or more; a right one by its operands' rounding, which
/// the near-identical regimes amplify 20 times and the difference in dg ten times.
double bound(const Contract& contract) { return contract.operands == Format::bf16 ? 0.3 : 2 * unit_roundoff(contract.gradient) + 5e-3; }

} // namespace

bool check_backward_accuracy(nlohmann::json& report, bool quick, const std::string& of_regime) {
  std::vector<Kernel> kernels;
  append_cuda_kernels(kernels);
  bool all = !kernels.empty();
  unsigned seed = 1000;
  std::printf("%-47s", "relative errors of gradients:");
  for (Input input : wanted) std::printf(" %8.8s", std::string(name(input)).c_str());
  std::printf("\n");
  for (const Regime& regime : regimes()) {
    if (std::string_view(regime.name).find(of_regime) == std::string_view::npos) continue;
    for (const Kernel& kernel : kernels) {
      if (!kernel.backward || !accepts(kernel.contract, regime) || regime.shape.T > 1000) continue;
      if (quick && (regime.shape.T >= 300 || regime.shape.HV > 4)) continue;
      std::vector<Losses> losses{{"", true, true}};
      if (std::string_view(regime.name) == "gaussian" || std::string_view(regime.name) == "packed")
        losses.push_back({", do only", true, false}), losses.push_back({", dht only", false, true});
      for (const Losses& loss : losses) {
        const Case made = make_case(regime, kernel.contract, ++seed);
        Backward back = make_backward(made, kernel.contract, loss, ++seed);
        const std::string label = regime.name + std::string(loss.name);
        std::printf("%-22s %-24s", label.c_str(), kernel.name.c_str() + 5);
        GradientOutputs out;
        for (auto& [input, tensor] : back.gradient) out[input] = tensor.view;
        nlohmann::json row{{"regime", label}, {"kernel", kernel.name}};
        bool good = true;
        try {
          kernel.backward(made.in, back.cotangents, out, {});
          double A_log_square = 0;
          const auto exact = exact_gradients(made, back, kernel.contract.state_v_first, A_log_square);
          for (Input input : wanted) {
            if (!exact.contains(input)) {
              std::printf(" %8s", "-");
              continue;
            }
            double difference = 0, norm = 0;
            for (std::size_t e = 0; e < exact.at(input).size(); ++e) {
              const double truth = exact.at(input)[e], d = load(back.gradient.at(input).view, static_cast<std::int64_t>(e)) - truth;
              difference += d * d, norm += truth * truth;
            }
            // One number a head, whose terms may cancel: measured against them too.
            if (input == Input::A_log) norm = std::max(norm, A_log_square);
            // Gradients below the smallest fp32 number are as good as zero.
            const double least = 0x1p-126 * std::sqrt(static_cast<double>(exact.at(input).size()));
            const double error = std::sqrt(norm) > least ? std::sqrt(difference / norm) : std::sqrt(difference) > least;
            row[std::string(name(input))] = error;
            good = good && error <= bound(kernel.contract);
            std::printf(" %8.1e", error);
          }
        } catch (const std::exception& error) {
          good = false;
          std::printf(" %s", error.what());
        }
        row["good"] = good;
        report["gradients"].push_back(row);
        std::printf("%s\n", good ? "" : " BAD");
        std::fflush(stdout);
        all = all && good;
      }
    }
  }
  return all;
}

} // namespace kdacheck::cuda
