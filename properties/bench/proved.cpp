// What the proved bound is worth.
//
//   proved --correct [--kernel GLOB] [--regime GLOB] [--seeds N] [--seconds S] [--backward]   error / bound of kernels that are right,
//                                   or of their gradients where these have a bound
//   proved --faults [--seeds N]     error / bound of planted faults on one chunk from a warm state (least over seeds)
//   proved --faults --backward [--seeds N] [--also TEXT]   on the whole quick set of regimes, of faults of the backward pass: in how many
//                                   cases they are proved to be faults; `--also "solve=fp16"`: if their contracts said this as well
//   proved --cost [--backward]      time of the proved bound, or of that of gradients, beside that of the perturbed runs of the same case
//
// Status 1 if a kernel that is right exceeds its bound.

#include "../cases/generate.hpp"
#include "../confidence.hpp"
#include "../proved/proved_bound.hpp"
#include "../proved/proved_ratio.hpp"
#include "../selection.hpp"
#include "../transform.hpp"

#include "../../kernels/faults/correct_variants.hpp"
#include "../../kernels/faults/faults.hpp"
#include "../../kernels/kernel.hpp"

#include <CLI/CLI.hpp>
#include <chrono>
#include <ctime>
#include <fmt/core.h>
#include <map>
#include <string>

namespace {

using namespace kdacheck;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// Kernels under contracts that no built-in kernel has.
std::vector<Kernel> correct_kernels() {
  std::vector<Kernel> all;
  for (const Kernel& kernel : built_in_kernels()) all.push_back(kernel);
  for (const Kernel& kernel : correct_variants()) all.push_back(kernel);
  for (const auto& [label, contract] : {
           std::pair{"chunk48", "chunk=48 order=residual_first l2norm=both"},
           std::pair{"tf32-truncated", "chunk=32 order=residual_first operands=tf32 tf32=truncate"},
           std::pair{"fp16", "chunk=32 order=residual_first operands=fp16 value_max=100"},
           std::pair{"bf16-wy", "chunk=32 order=wy operands=bf16 input=bf16 output=bf16"},
           std::pair{"bf16-state", "chunk=16 order=residual_first state=bf16"},
           std::pair{"fp16-state", "chunk=16 order=residual_first state=fp16 value_max=100"},
           std::pair{"fp16-wy", "chunk=32 order=wy operands=fp16 value_max=100"},
           std::pair{"fp16-recurrence", "chunk=1 order=recurrence operands=fp16 value_max=100"},
           std::pair{"fp16-dg-sums", "chunk=1 order=recurrence operands=fp16 decay_gradient=sums value_max=100"},
           std::pair{"fp16-solve", "chunk=64 order=residual_first solve=fp16"},
           std::pair{"fp16-solve-wy", "chunk=32 order=wy operands=bf16 solve=fp16"},
           std::pair{"undeclared", "chunk=32"},
           std::pair{"undeclared-fp16", "chunk=32 operands=fp16 value_max=100"},
       })
    all.push_back(faultless_kernel(label, contract));
  for (const Kernel& kernel : built_in_kernels()) // with more allowed than it needs: formats of a peer, adapters/fla_triton.py
    if (kernel.name == "cpu.dplr.chunk64.bf16") {
      Kernel& peer = all.emplace_back(kernel);
      peer.name = "correct.fp16-solve-dplr";
      peer.contract.solve = Format::fp16, peer.contract.gradient_state = Format::bf16;
    }
  return all;
}

/// Whether every entry of a bound is finite.
bool finite(const ProvedBound& bound) {
  const auto all = [](const std::vector<double>& x) { return std::ranges::all_of(x, [](double each) { return std::isfinite(each); }); };
  return all(bound.token) && all(bound.state_row) && std::ranges::all_of(bound.gradient, all);
}
bool derived(const ProvedBound& bound) {
  return std::ranges::any_of(bound.gradient, [](const std::vector<double>& x) { return !x.empty(); });
}

int correct(const std::string& kernel_pattern, const std::string& regime_pattern, std::uint64_t seeds, double seconds, bool backward) {
  struct Cell {
    double largest = 0;
    std::int64_t cases = 0, bound = 0, above = 0, finite = 0, forward_finite = 0;
    std::string where;
  };
  std::map<std::string, Cell> cells;
  const double start = now();
  const std::vector<Kernel> kernels = correct_kernels();
  for (std::uint64_t seed = 1; seed <= seeds && now() - start < seconds; ++seed)
    for (const Regime& regime : regimes()) {
      if (!glob_matches(regime_pattern, regime.name)) continue;
      for (const Kernel& kernel : kernels) {
        if (!glob_matches(kernel_pattern, kernel.name) || (backward && !kernel.backward)) continue;
        const Problem problem = make_problem(fitted(regime.draw(seed, Tier::quick), kernel.contract), input_formats(kernel.contract));
        if (outside_domain(kernel.contract, problem)) continue;
        const ProvedCase proved(kernel.contract, problem, backward);
        if (backward && !derived(proved.bound())) continue;
        const double ratio = proved.ratio(backward ? run_backward(kernel, problem) : run_forward(kernel, problem));
        Cell& cell = cells[kernel.name];
        cell.finite += finite(proved.bound());
        cell.forward_finite += backward && finite(proved_bound(kernel.contract, problem));
        ++cell.cases;
        cell.bound += ratio > 0;
        cell.above += !(ratio <= 1);
        if (!(ratio <= cell.largest)) cell.largest = ratio, cell.where = std::string(regime.name) + " seed " + std::to_string(seed);
        if (!(ratio <= 1)) fmt::print("{} above its bound: {:.3g} on {} seed {}\n", kernel.name, ratio, regime.name, seed);
      }
    }
  fmt::print("{:<32} {:>6} {:>7} {:>9} {:>6} {:>9}  {}\n", "kernel", "cases", "finite", "error > 0", "above", "largest", "at");
  std::int64_t above = 0, cases = 0, all_finite = 0, all_forward = 0;
  for (const auto& [name, c] : cells) {
    fmt::print("{:<32} {:>6} {:>7} {:>9} {:>6} {:>9.3g}  {}\n", name, c.cases, c.finite, c.bound, c.above, c.largest, c.where);
    above += c.above, cases += c.cases, all_finite += c.finite, all_forward += c.forward_finite;
  }
  fmt::print("{} cases, {} above the bound; finite everywhere in {}", cases, above, all_finite);
  if (backward) fmt::print(", that of the forward pass in {}", all_forward);
  fmt::print("\n");
  return above == 0 && cases > 0 ? 0 : 1;
}

/// One chunk that starts from the state that the case ended in: no error passes through later chunks, so that the bound is
/// at its sharpest (laws/a_chunk_from_a_warm_state_is_right.cpp).
std::optional<Problem> warm_chunk(const Problem& problem, std::int64_t chunk) {
  std::int64_t longest = 0;
  for (const Sequence& sequence : sequences(problem))
    if (sequence.length > sequences(problem)[static_cast<std::size_t>(longest)].length) longest = sequence.index;
  const Problem whole = chosen(problem, alone(problem, longest));
  const std::int64_t count = std::min(whole.shape.T, chunk);
  if (count < 1) return std::nullopt;
  const Truth warm = forward_truth(whole, Arithmetic::fp64);
  Problem result = chosen(whole, window(whole, whole.shape.T - count, count));
  result.initial_state.assign(warm.final_state.value.begin(), warm.final_state.value.end());
  return result;
}

int faults(const std::string& fault_pattern, const std::string& regime_pattern, std::uint64_t seeds) {
  constexpr std::string_view options = " order=residual_first gates=log_decay,softplus,bounded,sigmoid,absent "
                                       "betas=value,sigmoid,twice_sigmoid beta_max=2 l2norm=both";
  const std::vector<std::pair<std::string, std::string>> contracts{{"fp32 C16", "chunk=16"},
                                                                   {"fp32 C64", "chunk=64"},
                                                                   {"bf16 C16", "chunk=16 input=bf16 output=bf16 operands=bf16"},
                                                                   {"bf16 C64", "chunk=64 input=bf16 output=bf16 operands=bf16"}};
  std::map<std::string_view, std::vector<double>> least, most; // over seeds, of the largest over regimes
  for (std::size_t which = 0; which < contracts.size(); ++which) {
    const std::string text = contracts[which].second + std::string(options);
    const Contract contract = *parse_contract(text).contract;
    for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
      std::map<std::string_view, double> largest;
      for (const Regime& regime : regimes()) {
        if (!glob_matches(regime_pattern, regime.name)) continue;
        const Problem drawn = make_problem(fitted(regime.draw(seed, Tier::quick), contract), input_formats(contract));
        const auto problem = warm_chunk(drawn, contract.chunk);
        if (!problem || outside_domain(contract, *problem)) continue;
        const ProvedCase proved(contract, *problem);
        largest["none"] = std::max(largest["none"], proved.ratio(run_forward(faultless_kernel("", text), *problem)));
        for (FaultInfo info : planted_faults()) {
          if (info.backward || !glob_matches(fault_pattern, std::string(info.name))) continue;
          const std::string_view name = info.name;
          info.contract = text;
          const Run run = run_forward(faulty_kernel(info), *problem);
          const double ratio = run.refused ? 0.0 : proved.ratio(run);
          if (!(ratio <= largest[name])) largest[name] = ratio;
        }
      }
      for (const auto& [name, ratio] : largest) {
        auto& low = least.try_emplace(name, contracts.size(), 1e300).first->second[which];
        auto& high = most.try_emplace(name, contracts.size(), 0.0).first->second[which];
        low = std::min(low, ratio), high = std::max(high, ratio);
      }
    }
  }
  fmt::print("Error / proved bound on one chunk from a warm state: the largest over regimes, the least over {} seeds\n\n{:<30}", seeds,
             "fault");
  for (const auto& [label, text] : contracts) fmt::print(" {:>10}", label);
  std::vector<int> proved(contracts.size(), 0);
  for (const auto& [name, ratios] : least) {
    fmt::print("\n{:<30}", name);
    for (std::size_t which = 0; which < contracts.size(); ++which) {
      fmt::print(" {:>10.3g}", ratios[which]);
      proved[which] += ratios[which] > 1;
    }
  }
  fmt::print("\n{:<30}", "proved");
  for (int n : proved) fmt::print(" {:>10}", n);
  fmt::print("\nof {} faults; the right kernel's largest over seeds:", least.size() - 1);
  bool held = true;
  for (double x : most["none"]) fmt::print(" {:.3g}", x), held = held && x <= 1;
  fmt::print("\n");
  return held ? 0 : 1;
}

/// Faults of the backward pass on the quick set, each under the contract that it claims.
int backward_faults(const std::string& fault_pattern, const std::string& regime_pattern, std::uint64_t seeds, const std::string& also) {
  fmt::print("{:<36} {:>6} {:>7} {:>9}  {}\n", "fault", "cases", "proved", "largest", "at");
  std::int64_t faults = 0, proved_faults = 0, without = 0, unlike = 0;
  for (FaultInfo info : planted_faults()) {
    if (!info.backward || !glob_matches(fault_pattern, std::string(info.name))) continue;
    const std::string text = std::string(info.contract) + (also.empty() ? "" : " ") + also;
    info.contract = text;
    if (const ParsedContract parsed = parse_contract(text); !parsed.contract) {
      ++unlike; // it says otherwise already
      continue;
    }
    const Kernel kernel = faulty_kernel(info);
    std::int64_t cases = 0, above = 0;
    double largest = 0;
    std::string where;
    for (const Regime& regime : regimes())
      for (std::uint64_t seed = 1; seed <= seeds && glob_matches(regime_pattern, regime.name); ++seed) {
        const Problem problem = make_problem(fitted(regime.draw(seed, Tier::quick), kernel.contract), input_formats(kernel.contract));
        if (outside_domain(kernel.contract, problem)) continue;
        const ProvedCase proved(kernel.contract, problem, true);
        if (!derived(proved.bound())) continue;
        const Run run = run_backward(kernel, problem);
        const double ratio = run.refused ? 0.0 : proved.ratio(run);
        ++cases, above += !(ratio <= 1);
        if (!(ratio <= largest)) largest = ratio, where = std::string(regime.name) + " seed " + std::to_string(seed);
      }
    if (cases == 0) {
      ++without;
      continue;
    }
    ++faults, proved_faults += above > 0;
    fmt::print("{:<36} {:>6} {:>7} {:>9.3g}  {}\n", info.name, cases, above, largest, where);
  }
  fmt::print("{} of {} faults proved in some case; {} claim contracts for which no bound is derived", proved_faults, faults, without);
  if (unlike > 0) fmt::print("; {} say otherwise than \"{}\"", unlike, also);
  fmt::print("\n");
  return faults > 0 ? 0 : 1;
}

int cost(bool backward) {
  fmt::print("{:<44} {:>6} {:>12} {:>14} {:>8}\n", "contract", "T", "proved ms", "8 draws ms", "ratio");
  for (const char* text : {"chunk=16 order=residual_first", "chunk=64 order=residual_first", "chunk=64 order=wy", "chunk=64",
                           "chunk=64 order=residual_first operands=bf16", "order=recurrence chunk=1"})
    for (std::int64_t T : {96, 512}) {
      const Contract contract = *parse_contract(text).contract;
      Recipe recipe = fitted(regimes()[0].draw(1, Tier::quick), contract);
      recipe.shape = {.B = 1, .T = T, .H = 1, .HV = 1, .K = 128, .V = 128};
      const Problem problem = make_problem(recipe, input_formats(contract));
      const Truth truth = (backward ? gradient_truth : forward_truth)(problem, Arithmetic::fp64, 53);
      double best = 1e300, all = 1e300;
      for (int repeat = 0; repeat < 5; ++repeat) {
        const double start = now();
        (backward ? proved_gradient_bound : proved_bound)(contract, problem, Submodels::all);
        const double middle = now();
        if (repeat < 2) {
          (backward ? gradient_budget : forward_budget)(contract, problem, truth, 1, 8, Submodels::all); // which computes the bound again
          all = std::min(all, now() - middle);
        }
        best = std::min(best, middle - start);
      }
      fmt::print("{:<44} {:>6} {:>12.2f} {:>14.2f} {:>8.3f}\n", text, T, 1e3 * best, 1e3 * (all - best), best / (all - best));
    }
  if (backward) return 0;
  // the largest head whose columns are all followed, under an order that is left open: six submodels
  const Contract open = *parse_contract("").contract;
  Recipe recipe = fitted(regimes()[0].draw(1, Tier::quick), open);
  recipe.shape = {.B = 1, .T = 128, .H = 1, .HV = 1, .K = 64, .V = affordable_work / (128 * 64)};
  const Problem problem = make_problem(recipe, input_formats(open));
  const Truth truth = forward_truth(problem, Arithmetic::fp64);
  const std::clock_t start = std::clock();
  for (std::uint64_t seed = 1; seed <= 3; ++seed) forward_budget(open, problem, truth, seed, screening_draws);
  fmt::print("affordable_work: {} columns of {} tokens at K = {}: {:.2f} s of processor time for {} draws\n", problem.shape.V,
             problem.shape.T, problem.shape.K, static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC / 3, screening_draws);
  return 0;
}

} // namespace

int main(int count, char** arguments) {
  CLI::App app("What the proved bound is worth");
  std::string kernel_pattern = "*", regime_pattern = "*", fault_pattern = "*", also;
  std::uint64_t seeds = 3;
  double seconds = 1e9;
  bool backward = false, of_correct = false, of_faults = false, of_cost = false;
  app.add_option("--kernel", kernel_pattern);
  app.add_option("--regime", regime_pattern);
  app.add_option("--seeds", seeds);
  app.add_option("--seconds", seconds);
  app.add_option("--fault", fault_pattern);
  app.add_option("--also", also);
  app.add_flag("--correct", of_correct);
  app.add_flag("--backward", backward);
  app.add_flag("--faults", of_faults);
  app.add_flag("--cost", of_cost);
  CLI11_PARSE(app, count, arguments);
  if (of_correct) return correct(kernel_pattern, regime_pattern, seeds, seconds, backward);
  if (of_faults && backward) return backward_faults(fault_pattern, regime_pattern, seeds, also);
  if (of_faults) return faults(fault_pattern, regime_pattern, seeds);
  if (of_cost) return cost(backward);
  fmt::print(stderr, "one of --correct, --faults, --cost is needed\n");
  return 2;
}
