#include "reproduction.hpp"

#include <fmt/format.h>

namespace kdacheck {

std::string python_reproduction(const Problem& problem, const CaseResult& result) {
  const bool dplr = problem.options.rule == Rule::dplr;
  const std::string step = dplr ? "S = alpha[:, None] * S - np.outer(a[r, h], b[r, h] @ S) + np.outer(k[r, h * H // HV], v[r, h])"
                                : "D = alpha[:, None] * S; S = D + np.outer(beta[r, h] * key, v[r, h] - key @ D)";
  std::string gate;
  switch (problem.options.gate) {
  case GateForm::log_decay: gate = "np.exp(g)"; break;
  case GateForm::softplus: gate = "np.exp(-np.exp(A)[:, None] * np.logaddexp(0, g + bias))"; break;
  case GateForm::bounded:
    gate = fmt::format("np.exp({} / (1 + np.exp(-np.exp(A)[:, None] * (g + bias))))", problem.options.lower_bound);
    break;
  case GateForm::sigmoid: gate = "1 / (1 + np.exp(-g))"; break;
  case GateForm::absent: gate = "np.ones((len(v), HV, K))"; break;
  }
  const std::string beta = problem.options.beta == BetaForm::value     ? "x"
                           : problem.options.beta == BetaForm::sigmoid ? "1 / (1 + np.exp(-x))"
                                                                       : "2 / (1 + np.exp(-x))";
  return fmt::format(
      R"(# {0}: {1} on {2}
# {3}
import numpy as np
from safetensors import safe_open

with safe_open("case.safetensors", "np") as file:  # pip install numpy safetensors ml_dtypes
    case = {{name: file.get_tensor(name) for name in file.keys()}}
wide = {{name: x.astype(np.float64) for name, x in case.items()}}
rows = lambda name: wide[name].reshape(-1, *wide[name].shape[2:])
q, k, v = rows("q"), rows("k"), rows("v")
H, K, HV, V = q.shape[1], q.shape[2], v.shape[1], v.shape[2]
{4}
starts = case.get("cu_seqlens", np.arange(wide["q"].shape[0] + 1) * wide["q"].shape[1])
o = np.zeros((len(v), HV, V))
for n in range(len(starts) - 1):
    for h in range(HV):
        S = wide["initial_state"][n, h] if "initial_state" in wide else np.zeros((K, V))
        for r in range(starts[n], starts[n + 1]):
            alpha, key = decay[r, h], k[r, h * H // HV]
            {5}
            o[r, h] = S.T @ ({6} * q[r, h * H // HV])
print(o)  # compare with your kernel's output on the same tensors
)",
      result.kernel, result.property, result.regime, result.replay,
      fmt::format("g, A, bias = rows(\"g\") if \"g\" in wide else 0, wide.get(\"A_log\", 0), wide.get(\"dt_bias\", 0)\ndecay = {}\n{}{}",
                  gate, dplr ? "a, b = rows(\"a\"), rows(\"b\")" : fmt::format("x = rows(\"beta\"); beta = {}", beta),
                  problem.options.l2norm ? "\nq, k = (x / np.sqrt((x * x).sum(-1, keepdims=True) + 1e-6) for x in (q, k))" : ""),
      step, problem.options.scale);
}

std::string cpp_reproduction(const CaseResult& result) {
  return fmt::format(R"(// {0}: {1} on {2}
// Build inside the project: link kdacheck_golden.
#include "golden/recorded.hpp"
#include "properties/judge.hpp"
#include "properties/run.hpp"

#include <cstdio>
#include <string>

int main() {{
  using namespace kdacheck;
  const Problem problem = problem_from("case.safetensors");
  for (const Kernel& kernel : built_in_kernels()) {{
    if (kernel.name != "{0}") continue;
    const Run run = run_forward(kernel, problem);
    const Truth truth = forward_truth(problem, Arithmetic::double_double);
    for (std::size_t i = 0; i < run.o.size(); ++i)
      std::printf("o[%zu] = %.9g, exact %.17g\n", i, run.o[i], truth.o.value[i]);
    const Finding finding = Judge().forward(kernel.contract, problem, run);
    std::printf("%s: error / bound %.3g %s\n", std::string(name(finding.verdict)).c_str(), finding.bound_util, finding.detail.c_str());
    return is_failure(finding.verdict) ? 1 : 0;
  }}
}}
)",
                     result.kernel, result.property, result.regime);
}

} // namespace kdacheck
