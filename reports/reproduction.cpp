#include "reproduction.hpp"

#include "../properties/property.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace kdacheck {
namespace {

bool goes_back(const std::string& property) {
  const auto found = std::ranges::find(properties(), property, &Property::name);
  return found != properties().end() && found->direction == Direction::backward;
}

} // namespace

std::string python_reproduction(const Problem& problem, const CaseResult& result) {
  const bool backward = goes_back(result.property);
  const bool dplr = problem.options.rule == Rule::dplr;
  const std::string step = dplr ? "S = alpha[:, None] * S - np.outer(a[r, h], b[r, h] @ S) + np.outer(k[r, h * H // HV], v[r, h])"
                                : "D = alpha[:, None] * S; S = D + np.outer(beta[r, h] * key, v[r, h] - key @ D)";
  std::string gate;
  switch (problem.options.gate) {
  case GateForm::log_decay: gate = "np.exp(g)"; break;
  case GateForm::softplus: gate = "np.exp(-np.exp(A)[:, None] * np.logaddexp(0, g + bias))"; break;
  case GateForm::bounded:
    gate = fmt::format("np.exp({} / (1 + np.exp(-np.exp(A)[:, None] * (g + bias))))", static_cast<double>(problem.options.lower_bound));
    break;
  case GateForm::sigmoid: gate = "1 / (1 + np.exp(-g))"; break;
  case GateForm::absent: gate = "np.ones((len(v), HV, K))"; break;
  }
  const std::string beta = problem.options.beta == BetaForm::value     ? "x"
                           : problem.options.beta == BetaForm::sigmoid ? "1 / (1 + np.exp(-x))"
                                                                       : "2 / (1 + np.exp(-x))";
  const std::string inputs =
      fmt::format("g, A, bias = rows(\"g\") if \"g\" in wide else 0, wide.get(\"A_log\", 0), wide.get(\"dt_bias\", 0)\n{{0}}decay = "
                  "{}\n{{0}}{}{}",
                  gate, dplr ? "a, b = rows(\"a\"), rows(\"b\")" : fmt::format("x = rows(\"beta\"); beta = {}", beta),
                  problem.options.l2norm ? "\n{0}q, k = [x / np.sqrt((x * x).sum(-1, keepdims=True) + 1e-6) for x in (q, k)]" : "");
  const std::string about = fmt::format("# {}: {} on {}\n# {}", result.kernel, result.property, result.regime, result.replay);
  if (backward)
    return fmt::format(R"({0}
import autograd.numpy as np, ml_dtypes  # whose import makes bfloat16 known
from autograd import grad
from safetensors import safe_open

with safe_open("case.safetensors", "np") as file:  # pip install autograd safetensors ml_dtypes
    case = {{name: file.get_tensor(name) for name in file.keys()}}
tensors = {{name: x.astype(np.float64) for name, x in case.items() if name not in ("do", "dht", "cu_seqlens")}}
starts = case.get("cu_seqlens", np.arange(case["q"].shape[0] + 1) * case["q"].shape[1])

def loss(wide):  # <do, o> + <dht, S_T>
    rows = lambda name: np.reshape(wide[name], (-1,) + wide[name].shape[2:])
    q, k, v = rows("q"), rows("k"), rows("v")
    H, K, HV, V = q.shape[1], q.shape[2], v.shape[1], v.shape[2]
    {1}
    do, total = case["do"].astype(np.float64).reshape(len(v), HV, V) if "do" in case else np.zeros(v.shape), 0.0
    for n in range(len(starts) - 1):
        for h in range(HV):
            S = wide["initial_state"][n, h] if "initial_state" in wide else np.zeros((K, V))
            for r in range(starts[n], starts[n + 1]):
                alpha, key = decay[r, h], k[r, h * H // HV]
                {2}
                total = total + np.sum(do[r, h] * np.dot(S.T, {3} * q[r, h * H // HV]))
            if "dht" in case: total = total + np.sum(case["dht"][n, h] * S)
    return total

for name, d in grad(loss)(tensors).items():
    print("d" + name, d)  # compare with your kernel's gradients for the same tensors
)",
                       about, fmt::format(fmt::runtime(inputs), "    "), step, static_cast<double>(problem.options.scale));
  return fmt::format(
      R"({0}
import ml_dtypes, numpy as np  # the former's import makes bfloat16 known
from safetensors import safe_open

with safe_open("case.safetensors", "np") as file:  # pip install numpy safetensors ml_dtypes
    case = {{name: file.get_tensor(name) for name in file.keys()}}
wide = {{name: x.astype(np.float64) for name, x in case.items()}}
rows = lambda name: wide[name].reshape(-1, *wide[name].shape[2:])
q, k, v = rows("q"), rows("k"), rows("v")
H, K, HV, V = q.shape[1], q.shape[2], v.shape[1], v.shape[2]
{1}
starts = case.get("cu_seqlens", np.arange(wide["q"].shape[0] + 1) * wide["q"].shape[1])
o, states = np.zeros((len(v), HV, V)), np.zeros((len(starts) - 1, HV, K, V))
for n in range(len(starts) - 1):
    for h in range(HV):
        S = wide["initial_state"][n, h] if "initial_state" in wide else np.zeros((K, V))
        for r in range(starts[n], starts[n + 1]):
            alpha, key = decay[r, h], k[r, h * H // HV]
            {2}
            o[r, h] = S.T @ ({3} * q[r, h * H // HV])
        states[n, h] = S
print("o", o, "final_state", states, sep="\n")  # compare with your kernel's on the same tensors
)",
      about, fmt::format(fmt::runtime(inputs), ""), step, static_cast<double>(problem.options.scale));
}

std::string cpp_reproduction(const CaseResult& result, const KernelSources& sources) {
  const bool backward = goes_back(result.property);
  std::string header = "kernels/kernel.hpp", kernels = "built_in_kernels()";
  const auto from = [&](const char* included, std::string expression) { header = included, kernels = std::move(expression); };
  const auto quoted = [](const std::string& text) { return nlohmann::json(text).dump(); };
  if (!sources.plugins.empty())
    from("kernels/plugin/plugin_kernels.hpp", fmt::format("plugin_kernels({})", quoted(sources.plugins.front())));
  if (!sources.commands.empty())
    from("kernels/plugin/subprocess_kernels.hpp", fmt::format("subprocess_kernels({})", quoted(sources.commands.front())));
  if (!sources.functions.empty())
    from("kernels/plugin/subprocess_kernels.hpp", fmt::format("python_kernels({})", quoted(sources.functions.front())));
  if (result.kernel.starts_with("correct.")) from("kernels/faults/correct_variants.hpp", "correct_variants()");
  std::string made = fmt::format("for (const Kernel& kernel : {}) {{", kernels);
  if (result.kernel.starts_with("fault."))
    header = "kernels/faults/faults.hpp",
    made = "for (const FaultInfo& info : planted_kernels()) {\n    const Kernel kernel = faulty_kernel(info);";
  if (result.kernel.starts_with("legal."))
    header = "kernels/faults/legal_roundings.hpp",
    made = "for (const LegalRounding& legal : legal_roundings()) {\n    const Kernel kernel = legal_kernel(legal);";
  const std::string shown = backward ? R"(    for (Input input : all_inputs)
      for (std::size_t i = 0; i < run.gradient[std::size_t(input)].size(); ++i)
        std::printf("d%s[%zu] = %.9g, exact %.17g\n", std::string(name(input)).c_str(), i, run.gradient[std::size_t(input)][i],
                    truth[input].value[i]);)"
                                     : R"(    for (Output output : all_outputs)
      for (std::size_t i = 0; i < run[output].size(); ++i)
        std::printf("%s[%zu] = %.9g, exact %.17g\n", std::string(name(output)).c_str(), i, run[output][i], truth[output].value[i]);)";
  return fmt::format(R"(// {0}: {1} on {2}
// In the project's folder: cmake -DKDACHECK_REPRODUCE=.../reproduce.cpp build && cmake --build build --target reproduce
// Here: .../build/reports/reproduce
#include "golden/recorded.hpp"
#include "{3}"
#include "properties/judge.hpp"
#include "properties/run.hpp"

#include <cstdio>
#include <string>

int main() {{
  using namespace kdacheck;
  const Problem problem = problem_from("case.safetensors");
  {4}
    if (kernel.name != {5}) continue;
    const Run run = run_{6}(kernel, problem);
    const Truth truth = {7}_truth(problem, Arithmetic::double_double);
{8}
    const Finding finding = Judge().{6}(kernel.contract, problem, run);
    std::printf("%s: error / bound %.3g %s\n", std::string(name(finding.verdict)).c_str(), finding.bound_util, finding.detail.c_str());
    return is_failure(finding.verdict) ? 1 : 0;
  }}
  std::fprintf(stderr, "no kernel is named {0}\n");
  return 2;
}}
)",
                     result.kernel, result.property, result.regime, header, made, quoted(result.kernel), backward ? "backward" : "forward",
                     backward ? "gradient" : "forward", shown);
}

} // namespace kdacheck
