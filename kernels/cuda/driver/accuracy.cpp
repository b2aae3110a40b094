#include "../kernels.hpp"
#include "../recurrence_fp64.hpp"
#include "cases.hpp"
#include "driver.hpp"

#include <cmath>
#include <cstdio>
#include <thread>

namespace kdacheck::cuda {
namespace {

struct Errors {
  double o = 0, state = 0;
};

/// Relative L2 errors over the whole tensors.
Errors compare(const Case& made, const Regime& regime, bool v_first) {
  const Shape& s = regime.shape;
  const std::int64_t N = made.in.N(), jobs = N * s.HV;
  std::vector<std::array<double, 4>> sums(static_cast<std::size_t>(jobs));
  const auto work = [&](std::int64_t job) {
    const std::int64_t n = job / s.HV, head = job % s.HV;
    const HeadResult truth = recurrence_fp64(made.in, n, head, v_first);
    auto& sum = sums[static_cast<std::size_t>(job)];
    const std::int64_t first = regime.cu_seqlens.empty() ? 0 : regime.cu_seqlens[static_cast<std::size_t>(n)];
    for (std::size_t e = 0; e < truth.o.size(); ++e) {
      const auto t = static_cast<std::int64_t>(e) / s.V, j = static_cast<std::int64_t>(e) % s.V;
      const double d = load(made.o.view, made.o.view.offset(regime.cu_seqlens.empty() ? n : 0, first + t, head, j)) - truth.o[e];
      sum[0] += d * d, sum[1] += truth.o[e] * truth.o[e];
    }
    for (std::int64_t c = 0; c < s.K; ++c)
      for (std::int64_t j = 0; j < s.V; ++j) {
        const double exact = truth.state[static_cast<std::size_t>(c * s.V + j)];
        const auto& view = made.final_state.view;
        const double d = load(view, v_first ? view.offset(n, head, j, c) : view.offset(n, head, c, j)) - exact;
        sum[2] += d * d, sum[3] += exact * exact;
      }
  };
  std::vector<std::thread> threads;
  const auto workers = static_cast<std::int64_t>(std::max(1u, std::thread::hardware_concurrency()));
  for (std::int64_t w = 0; w < workers; ++w)
    threads.emplace_back([&, w] {
      for (std::int64_t job = w; job < jobs; job += workers) work(job);
    });
  for (auto& thread : threads) thread.join();
  std::array<double, 4> total{};
  for (const auto& sum : sums)
    for (std::size_t i = 0; i < 4; ++i) total[i] += sum[i];
  return {std::sqrt(total[0] / std::fmax(total[1], 1e-300)), std::sqrt(total[2] / std::fmax(total[3], 1e-300))};
}

/// Sanity, not a verdict of the suite: a wrong kernel is off by 0.1 or more; a right one by its operands' rounding, which
/// the near-identical regimes amplify 20 times.
double bound(const Contract& contract, bool output) {
  const double rounding = output ? 2 * unit_roundoff(contract.output) : 0;
  if (contract.operands == Format::bf16) return 0.15;
  return rounding + (contract.operands == Format::fp16 ? 5e-3 : 1e-4);
}

} // namespace

bool check_accuracy(nlohmann::json& report, bool quick, const std::string& filter, const std::string& of_regime) {
  std::vector<Kernel> kernels;
  append_cuda_kernels(kernels);
  if (kernels.empty()) return false;
  bool all = true;
  for (const Regime& regime : regimes()) {
    if (std::string_view(regime.name).find(of_regime) == std::string_view::npos) continue;
    std::printf("%-16s", regime.name);
    for (const Kernel& kernel : kernels) {
      if (kernel.name.find(filter) == std::string::npos || kernel.contract.chunk == 64 || !accepts(kernel.contract, regime) ||
          (quick && regime.shape.T > 1000))
        continue;
      Case made = make_case(regime, kernel.contract, case_seed(regime));
      std::string trouble;
      Errors errors{NAN, NAN};
      try {
        kernel.forward(made.in, {.o = made.o.view, .final_state = made.final_state.view}, {});
        errors = compare(made, regime, kernel.contract.state_v_first);
      } catch (const std::exception& error) {
        trouble = error.what();
      }
      const bool good = errors.o <= bound(kernel.contract, true) && errors.state <= bound(kernel.contract, false);
      all = all && good;
      report["accuracy"].push_back(
          {{"regime", regime.name}, {"kernel", kernel.name}, {"o", errors.o}, {"state", errors.state}, {"good", good}});
      std::printf(" | %s %s%.1e %.1e%s", kernel.name.c_str() + 5, good ? "" : "BAD ", errors.o, errors.state, trouble.c_str());
    }
    std::printf("\n");
    std::fflush(stdout);
  }
  return all;
}

bool check_long_runs(nlohmann::json& report) {
  const Regime regime{.name = "1000000 tokens",
                      .shape = {.B = 1, .T = 1000000, .H = 2, .HV = 2, .K = 64, .V = 16},
                      .options = {.gate = GateForm::log_decay, .l2norm = true, .scale = 0.125f},
                      .gate_spread = 1e-3f};
  std::vector<Kernel> all, kernels;
  append_cuda_kernels(all);
  for (Kernel& kernel : all)
    if (kernel.contract.chunk != 64 && kernel.contract.input != Format::fp16 && !kernel.contract.state_v_first &&
        accepts(kernel.contract, regime))
      kernels.push_back(std::move(kernel));
  std::vector<Errors> errors(kernels.size(), Errors{NAN, NAN});
  std::vector<std::thread> threads; // the truth takes seconds
  for (std::size_t i = 0; i < kernels.size(); ++i)
    threads.emplace_back([&, i] {
      try {
        Case made = make_case(regime, kernels[i].contract, 77);
        kernels[i].forward(made.in, {.o = made.o.view, .final_state = made.final_state.view}, {});
        errors[i] = compare(made, regime, false);
      } catch (const std::exception& error) {
        std::fprintf(stderr, "%s: %s\n", kernels[i].name.c_str(), error.what());
      }
    });
  for (auto& thread : threads) thread.join();
  bool good = !kernels.empty();
  std::printf("%-16s", regime.name);
  for (std::size_t i = 0; i < kernels.size(); ++i) {
    const bool right = errors[i].o <= bound(kernels[i].contract, true) && errors[i].state <= bound(kernels[i].contract, false);
    good = good && right;
    report["accuracy"].push_back(
        {{"regime", regime.name}, {"kernel", kernels[i].name}, {"o", errors[i].o}, {"state", errors[i].state}, {"good", right}});
    std::printf(" | %s %s%.1e %.1e", kernels[i].name.c_str() + 5, right ? "" : "BAD ", errors[i].o, errors[i].state);
  }
  std::printf("\n");
  return good;
}

} // namespace kdacheck::cuda
