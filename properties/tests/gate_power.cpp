// The gate's power measured on a handful of kernels of which it is known what must come out.

#include "../gate_power.hpp"
#include "../selection.hpp"
#include "checked.hpp"

#include <algorithm>
#include <catch2/catch.hpp>

#include <map>
#include <set>

using namespace kdacheck;
using kdacheck::tests::property_named;

namespace {

const FaultInfo& planted(std::string_view name) { return *std::ranges::find(planted_faults(), name, &FaultInfo::name); }

const FaultPower& of(const Power& power, std::string_view name) { return *std::ranges::find(power.faults, name, &FaultPower::name); }

/// beta arrives in bf16: rounding it again changes no bit, and no test can see it.
FaultInfo hidden_fault() {
  FaultInfo info = planted("beta-bf16");
  info.name = "beta-bf16-unseen", info.contract = "chunk=16 order=residual_first beta_input=bf16";
  return info;
}

const Kernel& right_kernel() {
  static const Kernel right = faultless_kernel("right", "chunk=16 order=residual_first l2norm=both betas=value,sigmoid beta_max=2");
  return right;
}

const LegalRounding& legal_rounding() {
  return *std::ranges::find_if(legal_roundings(), [](const LegalRounding& legal) { return legal.fault == Fault::value_bf16; });
}

const std::set<std::string> where_decay_shows{"usual-decay"}, everywhere{"usual-decay", "no-decay"};

std::set<std::string> regimes_of(const FaultPower& fault, std::string_view property) {
  std::set<std::string> result;
  for (const auto& [cell, seeds] : fault.caught_by)
    if (cell.first == property) result.insert(cell.second);
  return result;
}

PowerPlan plan_of(std::vector<const FaultInfo*> faults) {
  return {.faults = std::move(faults),
          .correct = {&right_kernel()},
          .legal = {&legal_rounding()},
          .properties = {&property_named("agrees-with-the-oracle"), &property_named("outputs-are-finite"),
                         &property_named("gradients-agree-with-the-oracle")},
          .regimes = {regime_named("usual-decay"), regime_named("no-decay")},
          .seeds = 2,
          .threads = 1};
}

} // namespace

TEST_CASE("the whole matrix says which law on which regime catches a fault on how many seeds, and that nothing right is refused") {
  const FaultInfo hidden = hidden_fault();
  PowerPlan plan = plan_of({&planted("no-decay"), &planted("beta-bf16"), &planted("dq-unscaled"), &hidden});
  plan.every_catch = true;
  std::vector<std::string> said;
  const Power power = gate_power(plan, [&](const std::string& text) { said.push_back(text); });
  CHECK(said == std::vector<std::string>{"seed 1 of 2", "seed 2 of 2"});
  for (const FaultPower& fault : power.faults) {
    UNSCOPED_INFO(fault.name << ": " << fault.cases << " cases, " << fault.first_catch_seconds << " s");
    for (const auto& [cell, seeds] : fault.caught_by) UNSCOPED_INFO("  " << cell.first << " " << cell.second << " " << seeds);
  }
  REQUIRE(power.faults.size() == 4);
  for (const FaultPower& fault : power.faults) CHECK(fault.seeds == 2);
  for (const char* name : {"no-decay", "beta-bf16", "dq-unscaled"}) {
    const FaultPower& fault = of(power, name);
    INFO(name);
    CHECK(fault.caught());
    CHECK(fault.caught_seeds == 2);
    CHECK(fault.first_catch_seconds > 0);
    const Replay replay = replay_from_token(fault.found);
    CHECK(replay.kernel == "fault." + fault.name);
    const Kernel wrong = faulty_kernel(planted(name));
    Judge judge;
    CHECK(is_failure(tests::checked(wrong, property_named(replay.property), replay.recipe, judge).verdict));
  }
  CHECK(regimes_of(of(power, "no-decay"), "agrees-with-the-oracle") == where_decay_shows);
  CHECK(regimes_of(of(power, "beta-bf16"), "agrees-with-the-oracle") == everywhere);
  CHECK(regimes_of(of(power, "dq-unscaled"), "gradients-agree-with-the-oracle") == everywhere);
  CHECK(regimes_of(of(power, "dq-unscaled"), "agrees-with-the-oracle").empty()); // its forward pass is right, and is not asked
  CHECK(of(power, "no-decay").caught_by.at({"agrees-with-the-oracle", "usual-decay"}) == 2);

  const FaultPower& unseen = of(power, hidden.name);
  CHECK_FALSE(unseen.caught());
  CHECK(unseen.caught_seeds == 0);
  CHECK(unseen.caught_by.empty());
  CHECK(unseen.found.empty());
  CHECK(unseen.cases >= 4);

  REQUIRE(power.correct.size() == 1);
  CHECK(power.correct[0].name == right_kernel().name);
  CHECK(power.correct[0].cases >= 8); // two regimes and seeds, both directions
  REQUIRE(power.legal.size() == 1);
  CHECK(power.legal[0].fault == "value-bf16");
  CHECK(power.legal[0].label == "input=bf16");
  for (const CorrectPower* kernel : {&power.correct[0], &power.legal[0].kernel}) {
    INFO(kernel->name);
    CHECK(kernel->cases > 0);
    CHECK(kernel->rejected == 0);
    CHECK(kernel->rejections.empty());
    CHECK(kernel->agreement > 0);
    CHECK(kernel->agreement < kernel->cases); // outputs-are-finite is none of agreement
    std::size_t of_regimes = 0;
    for (const auto& [regime, cases] : kernel->cases_of_regime) of_regimes += cases;
    CHECK(of_regimes == kernel->cases);
    CHECK(kernel->cases_of_regime.size() == 2);
    CHECK(kernel->worst_bound_util > 0);
    CHECK(kernel->worst_bound_util <= 1);
  }
}

TEST_CASE("without the whole matrix a fault meets no case of a seed after its first catch") {
  const FaultInfo hidden = hidden_fault();
  const PowerPlan plan = plan_of({&planted("beta-bf16"), &hidden});
  const Power power = gate_power(plan);
  const FaultPower &caught = of(power, "beta-bf16"), &unseen = of(power, hidden.name);
  CHECK(caught.caught());
  CHECK(caught.cases == 2);
  CHECK(unseen.cases >= 4);
  int first_catches = 0;
  for (const auto& [cell, seeds] : caught.caught_by) first_catches += seeds;
  CHECK(first_catches == 2);
}

TEST_CASE("a kernel that is called right and is not counts as refused, with a token that shows it, and a fault in one seed of two is not "
          "caught") {
  Kernel wrong = faulty_kernel(planted("no-decay"));
  wrong.name = "called.right";
  PowerPlan plan = plan_of({});
  plan.correct = {&wrong}, plan.legal.clear();
  std::map<std::string, Progress> shown;
  const Power one = gate_power_of_seed(plan, 1, [&](std::string_view what, const Progress& now) {
    Progress& last = shown[std::string(what)];
    CHECK(now.done >= last.done);
    last = now;
  });
  CHECK(shown["right kernels"].done > 0);
  CHECK(shown["right kernels"].done == shown["right kernels"].planned);
  CHECK(shown["right kernels"].failed == one.correct[0].rejected);
  CHECK(one.correct[0].rejected > 0);
  CHECK(one.correct[0].rejected < one.correct[0].cases); // where nothing is to decay it is right
  REQUIRE(one.correct[0].rejections.size() == one.correct[0].rejected);
  for (const std::string& token : one.correct[0].rejections) CHECK(replay_from_token(token).recipe.regime == "usual-decay");
  CHECK(one.correct[0].worst_bound_util > 1);

  Power both{
      .faults =
          {{.name = "x", .origin = {}, .what = {}, .seeds = 1, .caught_seeds = 1, .caught_by = {{{"law", "regime"}, 1}}, .found = "token"}},
      .correct = one.correct,
      .legal = {}};
  Power further = both;
  further.faults[0].caught_seeds = 0, further.faults[0].caught_by.clear(), further.faults[0].found.clear();
  CHECK(both.faults[0].caught());
  add(both, further);
  CHECK(both.faults[0].seeds == 2);
  CHECK(both.faults[0].caught_seeds == 1);
  CHECK_FALSE(both.faults[0].caught());
  CHECK(both.faults[0].found == "token");
  CHECK(both.correct[0].rejected == 2 * one.correct[0].rejected);
  CHECK(both.correct[0].rejections.size() == both.correct[0].rejected);
  CHECK(both.correct[0].cases == 2 * one.correct[0].cases);
}

TEST_CASE("cells tuned on one half of the faults are tried on the other") {
  std::vector<std::string> names[2];
  for (const FaultInfo& info : planted_faults()) names[half_of(info.name)].emplace_back(info.name);
  for (const auto& half : names) CHECK(half.size() > planted_faults().size() / 3);
  const auto caught_in = [](std::string name, std::initializer_list<const char*> regimes) {
    FaultPower fault{
        .name = std::move(name), .origin = {}, .what = {}, .seeds = 1, .caught_seeds = regimes.size() > 0, .caught_by = {}, .found = {}};
    for (const char* regime : regimes) fault.caught_by[{"law", regime}] = 1;
    return fault;
  };
  // Half 0 needs one cell, b, which two of its faults share; that catches one of half 1. Half 1 needs two, of which c catches nothing of
  // half 0.
  Power power;
  power.faults = {caught_in(names[0][0], {"a", "b"}), caught_in(names[0][1], {"b"}), caught_in(names[0][2], {}),
                  caught_in(names[1][0], {"b"}), caught_in(names[1][1], {"c"})};
  const auto [first, second] = halves(power);
  CHECK(first.faults == 3);
  CHECK(first.caught == 2);
  CHECK(first.cells == 2);
  CHECK(first.caught_by_cells == 2);
  CHECK(second.faults == 2);
  CHECK(second.caught == 2);
  CHECK(second.cells == 1);
  CHECK(second.caught_by_cells == 1);
}

TEST_CASE("of rules, one with room lets a rounded beta through, and every one sees that nothing decays") {
  const FaultInfo hidden = hidden_fault();
  PowerPlan plan = plan_of({&planted("no-decay"), &planted("beta-bf16"), &planted("dq-unscaled"), &hidden});
  for (const char* text : {"allclose:atol=1e-2,rtol=1e-2", "rms_rel:0.005", "pcc:0.999", "twice_ref"}) {
    const Power power = rule_power(plan, parse_rule(text));
    INFO(text);
    for (const FaultPower& fault : power.faults) {
      CHECK(fault.seeds == 2);
      CHECK(fault.cases == 4);
    }
    CHECK(of(power, "no-decay").caught());
    CHECK(regimes_of(of(power, "no-decay"), "rule") == where_decay_shows);
    CHECK(of(power, "no-decay").caught_by.at({"rule", "usual-decay"}) == 2);
    CHECK(of(power, "dq-unscaled").caught() != (parse_rule(text).kind == AcceptanceRule::Kind::pcc)); // a correlation sees no scale
    CHECK(of(power, "beta-bf16").caught() == (parse_rule(text).kind == AcceptanceRule::Kind::twice_ref));
    CHECK_FALSE(of(power, hidden.name).caught());
    REQUIRE(power.correct.size() == 1);
    CHECK(power.correct[0].cases == 8); // the plan has faults of both directions
    CHECK(power.correct[0].rejected == 0);
  }
  plan.faults = {&planted("no-decay")};
  CHECK(rule_power(plan, parse_rule("pcc:0.999")).correct[0].cases == 4); // the plan has none of the backward pass
}
