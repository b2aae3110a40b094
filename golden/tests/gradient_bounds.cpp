// Bounds of gradients that golden cases hold: kernels of our own that keep their contract stay within, wrong ones do not.

#include "../../kernels/faults/faults.hpp"
#include "../../properties/run.hpp"
#include "../golden_set.hpp"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include <array>
#include <cmath>
#include <fstream>
#include <set>

using namespace kdacheck;

namespace {

constexpr std::string_view bound_name = ".bound.fp32.recurrence";

struct Stored {
  std::string name;
  GoldenCase blueprint;
  Problem problem;
  SafetensorsFile file;
};

/// Every case of the starter set that holds such bounds, and that `kernel` takes.
template <class Use> int for_each_bounded(const Kernel& kernel, Use use) {
  int cases = 0;
  for (const auto& folder : golden_cases(std::filesystem::path(KDACHECK_GOLDEN) / "starter")) {
    std::ifstream file(folder / "manifest.json");
    GoldenCase blueprint = blueprint_of(nlohmann::json::parse(file), folder.string());
    Problem problem = make_problem(blueprint.recipe, blueprint.contents.formats);
    const Stored stored{folder.filename().string(), blueprint, std::move(problem), SafetensorsFile(folder / "tensors.safetensors")};
    const auto& tensors = stored.file.table().tensors;
    if (std::ranges::none_of(tensors, [](const StoredTensor& tensor) { return tensor.name.ends_with(bound_name); })) continue;
    if (outside_domain(kernel.contract, stored.problem)) continue;
    use(stored);
    ++cases;
  }
  return cases;
}

/// Largest error / bound of each gradient that `run` wrote; by Input, -1 without a bound.
std::array<double, all_inputs.size()> utilisation(const Stored& stored, const Run& run) {
  std::array<double, all_inputs.size()> most{};
  most.fill(-1);
  for (Input input : all_inputs) {
    const std::string label = "d" + std::string(name(input));
    const TensorTable& table = stored.file.table();
    const StoredTensor* bound = table.find(label + std::string(bound_name));
    if (!bound) continue;
    const auto bounds = doubles(*bound), high = doubles(*table.find(label + ".high")), low = doubles(*table.find(label + ".low"));
    const std::vector<float>& written = run.gradient[static_cast<std::size_t>(input)];
    REQUIRE(written.size() == high.size());
    for (std::size_t i = 0; i < written.size(); ++i) {
      const double error = std::fabs(static_cast<double>(written[i]) - high[i] - low[i]);
      const double share = error == 0 ? 0 : error / bounds[i / (written.size() / bounds.size())];
      if (!(share <= most[static_cast<std::size_t>(input)])) most[static_cast<std::size_t>(input)] = share; // NaN is kept
    }
  }
  return most;
}

const Kernel& kernel_of(std::string_view wanted) {
  for (const Kernel& kernel : built_in_kernels())
    if (kernel.name == wanted) return kernel;
  throw std::logic_error("no kernel " + std::string(wanted));
}

} // namespace

TEST_CASE("gradients of fp32 kernels that go token by token lie within the stored bounds of every case, and not far below all") {
  std::array<double, all_inputs.size()> largest{};
  largest.fill(-1);
  int cases = 0;
  for (const char* wanted : {"cpu.recurrence.fp32", "cpu.dplr.recurrence.fp32"}) {
    const Kernel& kernel = kernel_of(wanted);
    cases += for_each_bounded(kernel, [&](const Stored& stored) {
      const auto shares = utilisation(stored, run_backward(kernel, stored.problem));
      for (Input input : all_inputs) {
        const double share = shares[static_cast<std::size_t>(input)];
        INFO(wanted << " on " << stored.name << ": d" << name(input));
        CHECK(share <= 1);
        largest[static_cast<std::size_t>(input)] = std::max(largest[static_cast<std::size_t>(input)], share);
      }
    });
  }
  CHECK(cases > 200);
  for (Input input : all_inputs) {
    INFO("d" << name(input) << ": largest error / bound " << largest[static_cast<std::size_t>(input)]);
    CHECK(largest[static_cast<std::size_t>(input)] > 1e-3);
  }
}

TEST_CASE("faults of the backward pass break a stored bound that the same kernel without them keeps") {
  constexpr std::string_view contract =
      "gates=log_decay,softplus,bounded,sigmoid,absent betas=value,sigmoid,twice_sigmoid l2norm=both beta_max=2"; // all in fp32
  const auto within = [](const Stored& stored, const Kernel& kernel) {
    const Run run = run_backward(kernel, stored.problem);
    if (run.refused) return false; // some faults throw
    const auto shares = utilisation(stored, run);
    return std::all_of(shares.begin(), shares.end(), [](double share) { return share <= 1; });
  };
  const Kernel right = faultless_kernel("fp32", contract); // in chunks, of which nothing is promised: dg from running sums is off by more
  std::set<std::string> kept;
  for_each_bounded(right, [&](const Stored& stored) {
    if (within(stored, right)) kept.insert(stored.name);
  });
  CHECK(kept.size() > 150);
  int seen = 0;
  std::string unseen;
  for (FaultInfo info : planted_faults()) {
    if (!info.backward) continue;
    info.contract = contract;
    const Kernel kernel = faulty_kernel(info);
    bool broken = false;
    for_each_bounded(kernel, [&](const Stored& stored) { broken = broken || (kept.contains(stored.name) && !within(stored, kernel)); });
    seen += broken;
    if (!broken) unseen += " " + std::string(info.name);
  }
  // What writes beside its tensors, comes and goes, or goes wrong in the projection of a norm, breaks none: 13 when this was written.
  INFO("not seen:" << unseen);
  CHECK(seen >= 90);
}
