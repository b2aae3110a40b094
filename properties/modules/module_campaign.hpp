#pragma once
// Runs the laws of modules over their regimes, and plants their faults, in processes of their own (module_process.hpp).

#include "../campaign.hpp"
#include "../gate_power.hpp"
#include "module_process.hpp"

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kdacheck {

/// Which cases: globs over laws and regimes, empty lists choose all.
struct ModulePlan {
  std::vector<const ModuleSuite*> suites;
  std::vector<std::string> laws, regimes;
  bool forward = true, backward = true; ///< laws of outputs, of gradients
  std::uint64_t first_seed = 1;
  int seeds = 1;
  int shard = 0, shards = 1;                                 ///< every case whose index mod shards is shard
  int threads = 0;                                           ///< 0: all cores
  std::chrono::milliseconds patience = module_case_patience; ///< for one case
};

/// Seeds per law and regime in a tier.
int module_seeds(Tier);

/// A module's name among kernels: "module.KimiDeltaAttention".
std::string name_in_reports(const ModuleSuite&);

/// What `./kdacheck replay` takes: "module.KimiDeltaAttention:causal:packed:1", with ":FAULT" behind it for a planted one.
std::string module_token(const ModuleCaseResult&);

/// The case of such a token, run again; nothing if it is a kernel's. Throws std::invalid_argument with a sentence for a
/// module's token that names nothing.
std::optional<ModuleCaseResult> replayed_module_case(std::string_view token);

/// A module's case as reports hold cases.
CaseResult case_of(const ModuleCaseResult&);

/// Results arrive one at a time. Cases whose key (case_key) is in `finished` are skipped. Stops early where `stop` says so: cases in
/// flight have some seconds then, and are left out if they do not end. Laws that crash or hang are results like any other.
Outcome run_module_campaign(const ModulePlan&, const std::unordered_set<std::string>& finished,
                            const std::function<void(const CaseResult&)>& on_result, const std::function<bool()>& stop = {});

/// A module's faults whose name ("KimiDeltaAttention.conv-state-shifted") matches a glob, each tried law by law until caught,
/// or on every law and regime; and the module itself under the same laws. Throws nothing for what a module does.
Power module_power(const ModulePlan&, const std::vector<std::string>& fault_globs, bool every_catch);

/// Names of all planted faults, as module_power has them.
std::vector<std::string> module_fault_names(std::span<const ModuleSuite>);

} // namespace kdacheck
