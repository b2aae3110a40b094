#pragma once
// A module under test: how its cases are drawn, what is true of them, which laws hold, which faults must be caught.
// A new module is one file with `ModuleSuite NAME_suite()` and a line in module_suites.cpp.

#include "../../kernels/modules/module.hpp"
#include "../verdict.hpp"

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kdacheck {

/// In which arithmetic an oracle computes.
struct ModuleArithmetic {
  enum class Kind : std::uint8_t {
    fp64,
    long_double, ///< 64 bits: what is true, as far as fp32 can tell
    independent, ///< every operation errs by a random part of an fp32 unit roundoff
    grid,        ///< every operation rounds to 24 bits of a randomly scaled grid: equal numbers err alike
  };
  Kind kind = Kind::fp64;
  std::uint64_t seed = 0; ///< of a perturbed arithmetic
  int order = 0;          ///< which of the algorithms that are the same in exact arithmetic; below ModuleOracle::orders
};

/// Numbers of a result, or of gradients, tensor by tensor in the order of ModuleResult or ModuleGradients.
struct ExactTensors {
  std::vector<std::vector<double>> outputs, states;              ///< of a forward pass
  std::vector<std::vector<double>> inputs, parameters, initials; ///< gradients, if cotangents were given
};

/// What is true of a module's calls. `evaluate` computes outputs and, unless the cotangents are null, gradients.
struct ModuleOracle {
  int orders = 1; ///< algorithms whose spreads the budget is the largest of (recurrence, chunks, ...)
  std::function<ExactTensors(const modules::ModuleCall&, const modules::ModuleCotangents*, const ModuleArithmetic&)> evaluate;
};

/// One module with a call, its loss, its truth, and the module with a fault of the suite planted.
struct ModuleCase {
  modules::Module module;
  ModuleOracle oracle; ///< evaluate is empty where laws alone judge
  modules::ModuleCall call;
  modules::ModuleCotangents cotangents;
  std::function<modules::Module(std::string_view fault)> planted{}; ///< empty: laws plant `fault` themselves
  std::string regime{};                                             ///< it was drawn for, where a law asks
  std::string fault{};                                              ///< planted in `module`, or to be
};

/// A law of one module, or of all. Whatever it draws follows from the seed.
struct ModuleLaw {
  std::string name;      ///< "prefill-equals-decode"
  std::string claim;     ///< one sentence that can be false
  bool backward = false; ///< needs a backward pass
  Finding (*check)(const ModuleCase&, std::uint64_t seed) = nullptr;
};

/// A regime of calls: a name and why.
struct ModuleRegime {
  std::string name, why;
};

/// A way to be wrong.
struct ModuleFault {
  std::string name, origin, what;
};

/// What reports say of a module on a regime besides errors: "false alarms", 12.
struct ModuleFigure {
  std::string name;
  double value = 0;
};

struct ModuleSuite {
  std::string name;    ///< "KimiDeltaAttention"
  std::string summary; ///< one line
  std::string source;  ///< where its definition stands
  std::vector<ModuleRegime> regimes;
  std::vector<ModuleLaw> laws; ///< those of all modules that apply, and its own
  std::vector<ModuleFault> faults;
  ModuleCase (*draw)(std::string_view regime, std::uint64_t seed) = nullptr; ///< the same arguments, the same case
  /// Of the case that `draw` makes; null where a module has none.
  std::vector<ModuleFigure> (*figures)(std::string_view regime, std::uint64_t seed) = nullptr;
};

/// Every module, in the order of reports.
std::span<const ModuleSuite> module_suites();

/// Laws that any module of tokens keeps (token_laws.cpp), in the order of their reports: those of outputs first, then those of
/// gradients.
std::vector<ModuleLaw> token_laws();

/// One case of a module: judged by one law. `fault` empty: the module itself.
struct ModuleCaseResult {
  std::string module, law, regime, fault;
  std::uint64_t seed = 0;
  Finding finding;
  double seconds = 0;
};

/// One law on a case. What a module throws is a finding, never an exception.
Finding checked(const ModuleLaw&, const ModuleCase&, std::uint64_t seed);

/// Checks one law on one drawn case.
ModuleCaseResult run_module_case(const ModuleSuite&, const ModuleLaw&, std::string_view regime, std::uint64_t seed,
                                 std::string_view fault = {});

} // namespace kdacheck
