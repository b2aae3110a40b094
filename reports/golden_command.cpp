#include "commands.hpp"

#include "../golden/golden_set.hpp"
#include "../golden/listed_cases.hpp"
#include "../golden/set_index.hpp"
#include "../properties/campaign.hpp"
#include "../properties/selection.hpp"
#include "../reference/atomic_file.hpp"
#include "../reference/named_file.hpp"
#include "context.hpp"
#include "folder_lock.hpp"
#include "module_selection.hpp"

#include <fmt/format.h>

#include <unistd.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <utility>

namespace kdacheck {
namespace {

/// Every option, shapes bounded or given: what `fitted` shortens a drawn recipe to.
Contract bounds_of(const GoldenArguments& arguments) {
  ParsedContract parsed = parse_contract(
      "rule=kda,dplr gates=log_decay,softplus,bounded,sigmoid,absent betas=value,sigmoid,twice_sigmoid l2norm=both beta_max=1000 "
      "k_norm_max=1e30 beta_min=-1000");
  if (!parsed.contract) throw std::logic_error(parsed.error);
  Contract contract = *parsed.contract;
  contract.T = {.least = arguments.exact ? arguments.largest_T : 0, .most = arguments.largest_T};
  contract.K = {.least = arguments.exact ? arguments.largest_K : 1, .most = arguments.largest_K};
  contract.V = {.least = arguments.exact ? arguments.largest_V : 1, .most = arguments.largest_V};
  return contract;
}

std::string_view word(GoldenOutcome::Kind kind) {
  switch (kind) {
  case GoldenOutcome::Kind::written: return "written";
  case GoldenOutcome::Kind::same: return "same";
  case GoldenOutcome::Kind::changed: return "CHANGED";
  case GoldenOutcome::Kind::damaged: return "DAMAGED";
  case GoldenOutcome::Kind::waiting: return "waiting";
  case GoldenOutcome::Kind::unfinished: return "unfinished";
  default: return "accepted";
  }
}

void show(const GoldenOutcome& outcome) {
  fmt::print("{:<10} {}\n", word(outcome.kind), outcome.name);
  for (const std::string& remark : outcome.remarks) fmt::print("             {}\n", remark);
}

/// 2 if a case cannot be read or breaks its own hashes or schema: wrong input, of which nothing can be said; 1 if a sound one changed.
int status_of(const std::vector<GoldenOutcome>& outcomes) {
  const auto count = [&](GoldenOutcome::Kind kind) {
    return std::count_if(outcomes.begin(), outcomes.end(), [kind](const GoldenOutcome& outcome) { return outcome.kind == kind; });
  };
  const auto changed = count(GoldenOutcome::Kind::changed), damaged = count(GoldenOutcome::Kind::damaged);
  const auto waiting = count(GoldenOutcome::Kind::waiting), unfinished = count(GoldenOutcome::Kind::unfinished);
  fmt::print("{} cases, {} changed, {} damaged{}{}\n", static_cast<std::ptrdiff_t>(outcomes.size()) - waiting - unfinished, changed,
             damaged, waiting ? fmt::format("; {} waiting to be accepted", waiting) : "",
             unfinished ? fmt::format("; {} unfinished", unfinished) : "");
  return damaged ? 2 : changed ? 1 : 0;
}

Format dtype_of(const GoldenArguments& arguments) { return format_named(arguments.dtype).value_or(Format::fp32); }

GoldenContents contents_of(const GoldenArguments& arguments, Format dtype) {
  return {.formats = {.qkv = dtype, .gate = Format::fp32, .beta = Format::fp32},
          .gradients = arguments.gradients,
          .intermediates_chunk = arguments.intermediates,
          .states = arguments.states};
}

/// What a case of the recipe can hold of what is asked for, and a sentence for each thing that it goes without.
std::pair<GoldenContents, std::vector<std::string>> suited(GoldenContents contents, const Recipe& recipe) {
  std::vector<std::string> without;
  if (contents.states && (!recipe.lengths.empty() || recipe.shape.B != 1 || recipe.shape.T == 0)) {
    contents.states = false;
    without.emplace_back("without states after every token: they need a single sequence of tokens");
  }
  if (contents.intermediates_chunk > 0 && recipe.shape.T == 0) {
    contents.intermediates_chunk = 0;
    without.emplace_back("without chunk intermediates: they need a token");
  }
  return {contents, without};
}

/// A case whose recipe is taken as it stands.
ListedCase case_of_token(const GoldenArguments& arguments) {
  if (arguments.name.empty()) throw UsageError("--token needs --name NAME, the name of the case's folder");
  if (!is_case_name(arguments.name))
    throw UsageError(
        "--name: a case is called by letters, digits, '-', '_' and '.' (not first), 200 at most, and not .new, .old, .partial or "
        ".safetensors at the end, which have a meaning in a set");
  try {
    const bool whole = arguments.token.find(':') != std::string::npos;
    const Recipe recipe = whole ? replay_from_token(arguments.token).recipe : from_token(arguments.token);
    if (names_a_draw(arguments.name, recipe, dtype_of(arguments)))
      throw UsageError("'" + arguments.name + "' is what a case is called that its regime draws: choose another --name");
    if (const auto [contents, without] = suited(contents_of(arguments, dtype_of(arguments)), recipe); !without.empty())
      throw UsageError("--token: this case would be " + without.front());
    return {.name = arguments.name, .dtype = dtype_of(arguments), .recipe = recipe, .why = {}};
  } catch (const std::invalid_argument& error) {
    throw UsageError(std::string("--token: ") + error.what());
  }
}

/// Cases that were named, in the place of those that regimes draw.
std::vector<ListedCase> listed_cases(const GoldenArguments& arguments) {
  if (!arguments.token.empty()) return {case_of_token(arguments)};
  std::vector<ListedCase> listed = arguments.found ? listed_found_cases() : std::vector<ListedCase>();
  if (arguments.cases.empty()) return listed;
  for (ListedCase& each : parse_listed_cases(text_of_file(arguments.cases), arguments.cases)) listed.push_back(std::move(each));
  return listed;
}

/// Throws FileTrouble for a case that this machine cannot hold. Measured: 364 MB for T = 8192, K = V = 128 and one head with gradients, 345
/// bytes for each element of q. States after every token add 38 and 41 for each of theirs (T = 64, K = V = 128, one head and two), chunk
/// intermediates 59 (T = 192, K = V = 128, four heads, chunks of 64): two doubles as computed and as stored.
void demand_memory(const Recipe& recipe, const GoldenContents& contents) {
  constexpr double bytes_per_element = 345, bytes_per_state_element = 48, bytes_per_chunk_element = 64;
  const auto& [B, T, H, HV, K, V] = recipe.shape;
  const auto size = [](auto... extents) { return (static_cast<double>(extents) * ...); };
  double needed = bytes_per_element * std::max(size(B, T, HV, std::max(K, V)), size(sequence_count(recipe), HV, K, V));
  if (contents.states) needed += bytes_per_state_element * size(T, HV, K, V);
  if (const std::int64_t C = contents.intermediates_chunk; C > 0)
    needed +=
        bytes_per_chunk_element * (size(B, T, HV, 2 * (K + V)) + size(B, HV, (T + C - 1) / C, 2, K, V) + size(B, HV, T, 3, std::min(C, T)));
  const double there = size(::sysconf(_SC_PHYS_PAGES), ::sysconf(_SC_PAGESIZE));
  if (needed > there)
    throw FileTrouble(
        fmt::format("a golden case of B={} T={} HV={} K={} V={}{}{} needs about {:.0f} GB of memory, and this machine has {:.0f}", B, T, HV,
                    K, V, contents.states ? " with its states" : "", contents.intermediates_chunk > 0 ? " with chunk intermediates" : "",
                    needed * 1e-9, there * 1e-9));
}

/// Calls `make` with the cases that were named, or with those that the chosen regimes draw.
void for_each_chosen(const GoldenArguments& arguments, const std::function<void(const ListedCase&)>& make) {
  const auto chosen = matching<Regime>("regime", arguments.regimes, regimes());
  const std::vector<ListedCase> listed = listed_cases(arguments);
  for (const ListedCase& each : listed) make(each);
  if (!listed.empty()) return;
  const Contract bounds = bounds_of(arguments);
  for (const Regime* regime : chosen)
    for (int i = 0; i < arguments.count; ++i) {
      const std::uint64_t seed = arguments.seed + static_cast<std::uint64_t>(i);
      make({.name = fmt::format("{}.{}.{}", regime->name, arguments.dtype, seed),
            .dtype = dtype_of(arguments),
            .recipe = fitted(regime->draw(seed, Tier::quick), bounds),
            .why = {}});
    }
}

/// What became of every entry, and how to take what was written beside another.
int status_of_set(const std::vector<GoldenOutcome>& outcomes, const std::string& set) {
  const int status = status_of(outcomes);
  if (status) fmt::print("changed cases were written beside the old ones as NAME.new; ./kdacheck golden accept {} NAME takes one\n", set);
  return status;
}

} // namespace

int golden_generate_command(const GoldenArguments& arguments) {
  demand_room_for_folder(arguments.set);
  std::vector<GoldenOutcome> outcomes;
  std::string commit;
  std::optional<FolderLock> lock;
  for_each_chosen(arguments, [&](const ListedCase& each) {
    const auto [contents, without] = suited(contents_of(arguments, each.dtype), each.recipe);
    demand_memory(each.recipe, contents);
    GoldenCase made = golden_case(each.name, each.recipe, contents);
    made.why = each.why;
    if (outcomes.empty()) { // a case that cannot be made is refused first
      make_folder(arguments.set);
      lock.emplace(arguments.set);
      commit = this_context().commit;
    }
    outcomes.push_back(store_golden(arguments.set, made, commit));
    outcomes.back().remarks.insert(outcomes.back().remarks.end(), without.begin(), without.end());
    show(outcomes.back());
  });
  return status_of_set(outcomes, arguments.set);
}

int golden_generate_modules_command(const GoldenArguments& arguments) {
  demand_room_for_folder(arguments.set);
  CaseSelection selection;
  selection.modules = arguments.modules.empty() ? std::vector<std::string>{"*"} : arguments.modules;
  selection.regimes = arguments.regimes;
  const ModulePlan plan = module_plan(selection, false); // refuses names that there are not
  make_folder(arguments.set);
  const FolderLock lock(arguments.set);
  std::vector<GoldenOutcome> outcomes;
  for (const ModuleSuite* suite : plan.suites)
    for (const ModuleRegime& regime : suite->regimes) {
      const auto wanted = [&](const std::string& pattern) { return glob_matches(pattern, regime.name); };
      if (!plan.regimes.empty() && std::ranges::none_of(plan.regimes, wanted)) continue;
      if (!suite->draw(regime.name, arguments.seed).oracle.evaluate) continue;
      outcomes.push_back(store_module_golden(arguments.set, *suite, regime.name, arguments.seed));
      show(outcomes.back());
    }
  return outcomes.empty() ? 5 : status_of_set(outcomes, arguments.set);
}

int golden_verify_command(const std::string& set) { return status_of(verify_golden(set, show)); }

int golden_diff_command(const std::string& before, const std::string& after) {
  const auto outcomes = diff_golden(before, after);
  for (const GoldenOutcome& outcome : outcomes)
    if (outcome.kind != GoldenOutcome::Kind::same) show(outcome);
  return status_of(outcomes);
}

int golden_accept_command(const std::string& set, const std::string& name) {
  demand_folder(set);
  const FolderLock lock(set);
  accept_golden(set, name);
  show({GoldenOutcome::Kind::accepted, name, {}});
  return 0;
}

} // namespace kdacheck
