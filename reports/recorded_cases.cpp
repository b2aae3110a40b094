#include "recorded_cases.hpp"

#include "../golden/recorded.hpp"
#include "../kernels/plugin/broken_law.hpp"

#include <chrono>
#include <cstring>

namespace kdacheck {
namespace {

Finding broken(std::string detail) {
  return {.verdict = Verdict::failed_property,
          .bound_util = std::numeric_limits<double>::infinity(),
          .place = {},
          .detail = std::move(detail),
          .metrics = {}};
}

Finding clean(const Run& run) { return run.trespasses.empty() ? Finding{} : broken(run.trespasses.front()); }

bool same_bits(const std::vector<float>& left, const std::vector<float>& right) {
  return left.size() == right.size() && (left.empty() || std::memcmp(left.data(), right.data(), left.size() * sizeof(float)) == 0);
}

} // namespace

std::vector<CaseResult> recorded_cases(const Kernel& kernel, const Problem& recorded, const std::string& path, Judge& judge) {
  const Problem problem = rounded_to(recorded, input_formats(kernel.contract));
  std::vector<CaseResult> results;
  const auto add = [&](const char* property, const auto& check) {
    const auto start = std::chrono::steady_clock::now();
    CaseResult result{.kernel = kernel.name, .property = property, .regime = "recorded", .replay = {}, .shrunk = {}, .finding = {}};
    result.replay = kernel.name + ":" + property + ":@" + path;
    try {
      result.finding = check();
    } catch (const KernelCrashed& crash) {
      result.finding = {.verdict = Verdict::crashed, .place = {}, .detail = crash.what(), .metrics = {}};
    } catch (const KernelTimedOut& late) {
      result.finding = {.verdict = Verdict::timed_out, .place = {}, .detail = late.what(), .metrics = {}};
    } catch (const KernelBrokeLaw& law) {
      result.finding = broken(law.what());
    }
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    results.push_back(std::move(result));
  };
  if (auto reason = outside_domain(kernel.contract, problem)) {
    add("agrees-with-the-oracle",
        [&] { return Finding{.verdict = Verdict::not_supported, .place = {}, .detail = *reason, .metrics = {}}; });
    return results;
  }
  std::optional<Run> answered;
  add("agrees-with-the-oracle", [&] { return judge.forward(kernel.contract, problem, answered.emplace(run_forward(kernel, problem))); });
  if (!answered) return results; // nothing that the other laws could look at
  const Run& run = *answered;
  add("writes-only-its-outputs", [&] { return clean(run); });
  if (kernel.contract.repeat == Sameness::bitwise)
    add("repeated-runs-agree", [&] {
      const Run again = run_forward(kernel, problem);
      return same_bits(run.o, again.o) && same_bits(run.final_state, again.final_state) ? Finding{}
                                                                                        : broken("two runs on the same inputs differ");
    });
  if (kernel.backward && (!problem.d_o.empty() || !problem.d_final_state.empty()))
    add("gradients-agree-with-the-oracle", [&] { return judge.backward(kernel.contract, problem, run_backward(kernel, problem)); });
  return results;
}

std::optional<std::string> recorded_path(std::string_view token) {
  const auto at = token.find(":@");
  if (at == std::string_view::npos) return std::nullopt;
  return std::string(token.substr(at + 2));
}

} // namespace kdacheck
