#include "commands.hpp"

#include "../golden/golden_set.hpp"
#include "../golden/listed_cases.hpp"
#include "../properties/campaign.hpp"
#include "../properties/selection.hpp"
#include "../reference/atomic_file.hpp"
#include "context.hpp"

#include <fmt/format.h>

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iterator>

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
  const auto waiting = count(GoldenOutcome::Kind::waiting);
  fmt::print("{} cases, {} changed, {} damaged{}\n", static_cast<std::ptrdiff_t>(outcomes.size()) - waiting, changed, damaged,
             waiting ? fmt::format("; {} waiting to be accepted", waiting) : "");
  return damaged ? 2 : changed ? 1 : 0;
}

Format dtype_of(const GoldenArguments& arguments) { return format_named(arguments.dtype).value_or(Format::fp32); }

GoldenContents contents_of(const GoldenArguments& arguments, Format dtype) {
  return {.formats = {.qkv = dtype, .gate = Format::fp32, .beta = Format::fp32},
          .gradients = arguments.gradients,
          .intermediates_chunk = arguments.intermediates,
          .states = arguments.states};
}

/// A case whose recipe is taken as it stands.
ListedCase case_of_token(const GoldenArguments& arguments) {
  if (arguments.name.empty() || arguments.name.find('/') != std::string::npos || arguments.name.front() == '.')
    throw UsageError("--token needs --name NAME, the name of the case's folder");
  if (arguments.name.ends_with(".new"))
    throw UsageError("a case whose name ends in .new is one that waits to be accepted: choose another --name");
  try {
    const bool whole = arguments.token.find(':') != std::string::npos;
    const Recipe recipe = whole ? replay_from_token(arguments.token).recipe : from_token(arguments.token);
    if (names_a_draw(arguments.name, recipe, dtype_of(arguments)))
      throw UsageError("'" + arguments.name + "' is what a case is called that its regime draws: choose another --name");
    return {.name = arguments.name, .dtype = dtype_of(arguments), .recipe = recipe, .why = {}};
  } catch (const std::invalid_argument& error) {
    throw UsageError(std::string("--token: ") + error.what());
  }
}

std::vector<ListedCase> cases_in(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw BadFile("cannot read " + path);
  return parse_listed_cases(std::string{std::istreambuf_iterator<char>(file), {}}, path);
}

/// Cases that were named, in the place of those that regimes draw.
std::vector<ListedCase> listed_cases(const GoldenArguments& arguments) {
  if (!arguments.token.empty()) return {case_of_token(arguments)};
  std::vector<ListedCase> listed = arguments.found ? listed_found_cases() : std::vector<ListedCase>();
  if (arguments.cases.empty()) return listed;
  for (ListedCase& each : cases_in(arguments.cases)) listed.push_back(std::move(each));
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

GoldenCase computed(const ListedCase& listed, const GoldenArguments& arguments) {
  GoldenCase made = [&] {
    try {
      return golden_case(listed.name, listed.recipe, contents_of(arguments, listed.dtype));
    } catch (const std::invalid_argument& error) {
      throw UsageError(error.what());
    }
  }();
  made.why = listed.why;
  return made;
}

} // namespace

int golden_generate_command(const GoldenArguments& arguments) {
  demand_room(arguments.set);
  const auto chosen = matching<Regime>("regime", arguments.regimes, regimes());
  const Contract bounds = bounds_of(arguments);
  const std::vector<ListedCase> listed = listed_cases(arguments);
  std::vector<GoldenOutcome> outcomes;
  std::string commit;
  const auto store = [&](const GoldenCase& made, const char* remark = nullptr) {
    if (outcomes.empty()) make_folder(arguments.set), commit = this_context().commit; // a case that cannot be made is refused first
    outcomes.push_back(store_golden(arguments.set, made, commit));
    if (remark) outcomes.back().remarks.push_back(remark);
    show(outcomes.back());
  };
  for (const ListedCase& each : listed) {
    demand_memory(each.recipe, contents_of(arguments, each.dtype));
    store(computed(each, arguments));
  }
  for (const Regime* regime : listed.empty() ? chosen : std::vector<const Regime*>())
    for (int i = 0; i < arguments.count; ++i) {
      const Recipe recipe = fitted(regime->draw(arguments.seed + static_cast<std::uint64_t>(i), Tier::quick), bounds);
      GoldenContents contents = contents_of(arguments, dtype_of(arguments));
      contents.states = contents.states && recipe.lengths.empty() && recipe.shape.B == 1 && recipe.shape.T > 0;
      demand_memory(recipe, contents);
      store(golden_case(fmt::format("{}.{}.{}", regime->name, arguments.dtype, arguments.seed + static_cast<std::uint64_t>(i)), recipe,
                        contents),
            arguments.states && !contents.states ? "without states after every token: they need a single sequence of tokens" : nullptr);
    }
  const int status = status_of(outcomes);
  if (status)
    fmt::print("changed cases were written beside the old ones as NAME.new; ./kdacheck golden accept {} NAME takes one\n", arguments.set);
  return status;
}

int golden_verify_command(const std::string& set) { return status_of(verify_golden(set, show)); }

int golden_diff_command(const std::string& before, const std::string& after) {
  const auto outcomes = diff_golden(before, after);
  for (const GoldenOutcome& outcome : outcomes)
    if (outcome.kind != GoldenOutcome::Kind::same) show(outcome);
  return status_of(outcomes);
}

int golden_accept_command(const std::string& set, const std::string& name) {
  accept_golden(set, name);
  show({GoldenOutcome::Kind::accepted, name, {}});
  return 0;
}

} // namespace kdacheck
