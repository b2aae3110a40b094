#include "../host/recurrence_fp64.hpp"
#include "../suite/kernels.hpp"
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
  const Options options{.gate = GateForm::log_decay, .l2norm = true, .scale = 0.125f};
  Options dplr = options;
  dplr.rule = Rule::dplr;
  const Shape shape{.B = 1, .T = 1000000, .H = 2, .HV = 2, .K = 64, .V = 16};
  const std::vector<Regime> long_regimes{{.name = "1000000 tokens", .shape = shape, .options = options, .gate_spread = 1e-3f},
                                         {.name = "DPLR 1000000 tokens", .shape = shape, .options = dplr, .gate_spread = 1e-2f}};
  std::vector<Kernel> kernels;
  append_cuda_kernels(kernels);
  struct Run {
    const Regime* regime;
    const Kernel* kernel;
    Errors errors{NAN, NAN};
  };
  std::vector<Run> runs;
  for (const Regime& regime : long_regimes)
    for (const Kernel& kernel : kernels)
      if (kernel.contract.chunk != 64 && kernel.contract.input != Format::fp16 && !kernel.contract.state_v_first &&
          accepts(kernel.contract, regime))
        runs.push_back({&regime, &kernel});
  std::vector<std::thread> threads; // the truth takes seconds
  for (Run& run : runs)
    threads.emplace_back([&run] {
      try {
        Case made = make_case(*run.regime, run.kernel->contract, 77);
        run.kernel->forward(made.in, {.o = made.o.view, .final_state = made.final_state.view}, {});
        run.errors = compare(made, *run.regime, false);
      } catch (const std::exception& error) {
        std::fprintf(stderr, "%s: %s\n", run.kernel->name.c_str(), error.what());
      }
    });
  for (auto& thread : threads) thread.join();
  bool good = !runs.empty();
  for (const Run& run : runs) {
    const Contract& contract = run.kernel->contract;
    const bool right = run.errors.o <= bound(contract, true) && run.errors.state <= bound(contract, false);
    good = good && right;
    report["accuracy"].push_back(
        {{"regime", run.regime->name}, {"kernel", run.kernel->name}, {"o", run.errors.o}, {"state", run.errors.state}, {"good", right}});
    std::printf("%-20s | %s %s%.1e %.1e\n", run.regime->name, run.kernel->name.c_str() + 5, right ? "" : "BAD ", run.errors.o,
                run.errors.state);
  }
  return good;
}

} // namespace kdacheck::cuda
