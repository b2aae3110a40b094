// What the proved bound of gradients in chunks is worth against planted faults. `proved --faults --backward` tries the whole quick set.

#include "../cases/recipe.hpp"
#include "../judge.hpp"
#include "../proved/proved_bound.hpp"

#include "../../kernels/faults/faults.hpp"

#include <catch2/catch.hpp>
#include <cstdio>

using namespace kdacheck;

namespace {

bool derived(const ProvedBound& bound) { return !bound.gradient[static_cast<std::size_t>(Input::k)].empty(); }

/// The contract that a fault claims, with its chunks under another order.
std::string under(std::string_view contract, std::string_view order) {
  std::string text(contract);
  constexpr std::string_view claimed = "order=residual_first";
  if (const auto place = text.find(claimed); place != std::string::npos) text.replace(place, claimed.size(), order);
  return text;
}

} // namespace

TEST_CASE("planted faults of a backward pass in chunks are refused as proved, whatever the order that they claim") {
  for (const char* order : {"order=residual_first", "order=wy", "order=undeclared"}) {
    Judge judge;
    int faults = 0, proved = 0;
    for (FaultInfo info : planted_faults()) {
      if (!info.backward) continue;
      const std::string contract = under(info.contract, order);
      info.contract = contract;
      const Kernel kernel = faulty_kernel(info);
      bool tried = false, refused = false;
      for (const char* regime : {"gaussian-keys", "grouped-heads"}) {
        const Problem problem =
            make_problem(fitted(regime_named(regime)->draw(1, Tier::quick), kernel.contract), input_formats(kernel.contract));
        if (refused || outside_domain(kernel.contract, problem) || !derived(proved_gradient_bound(kernel.contract, problem))) continue;
        const Run run = run_backward(kernel, problem);
        if (run.refused) continue;
        tried = true, refused = judge.backward(kernel.contract, problem, run).verdict == Verdict::failed_proved;
      }
      faults += tried, proved += refused;
    }
    std::printf("%s: %d of %d planted faults of the backward pass are proved on two cases\n", order, proved, faults);
    CHECK(faults >= 30);
    CHECK(proved >= faults / 4);
  }
}
