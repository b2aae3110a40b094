#include "../suite/kernels.hpp"
#include "backward_cases.hpp"
#include "driver.hpp"

#include <cmath>
#include <cstdio>

namespace kdacheck::cuda {
namespace {

/// Sanity, not a verdict of the suite: a wrong kernel is off by 0.1 or more; a right one by its operands' rounding, which
/// the near-identical regimes amplify 20 times and the difference in dg ten times.
double bound(const Contract& contract) { return contract.operands == Format::bf16 ? 0.3 : 2 * unit_roundoff(contract.gradient) + 5e-3; }

} // namespace

bool check_backward_accuracy(nlohmann::json& report, bool quick, const std::string& of_regime) {
  std::vector<Kernel> kernels;
  append_cuda_kernels(kernels);
  bool all = !kernels.empty();
  std::printf("%-47s", "relative errors of gradients:");
  for (Input input : wanted_gradients) std::printf(" %8.8s", std::string(name(input)).c_str());
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
        const Case made = make_case(regime, kernel.contract, case_seed(regime));
        Backward back = make_backward(made, kernel.contract, loss, cotangent_seed(regime));
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
          for (Input input : wanted_gradients) {
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
