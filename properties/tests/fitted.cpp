#include "../cases/recipe.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>

using namespace kdacheck;

namespace {

Contract contract(std::string_view text) {
  const auto parsed = parse_contract(text);
  INFO(parsed.error);
  REQUIRE(parsed.contract);
  return *parsed.contract;
}

const std::string everything =
    "rule=kda,dplr gates=log_decay,softplus,bounded,sigmoid,absent betas=value,sigmoid,twice_sigmoid l2norm=both "
    "beta_max=2 ";

/// exp(ln alpha) as a kernel with raw gates would see it.
double alpha(const Problem& p, std::size_t at) {
  if (p.g.empty()) return 1;
  const auto row = at % static_cast<std::size_t>(p.shape.HV * p.shape.K);
  const double x = p.g[at], z = x + (p.dt_bias.empty() ? 0.0 : p.dt_bias[row]);
  const double gain = p.A_log.empty() ? 0 : std::exp(static_cast<double>(p.A_log[row / static_cast<std::size_t>(p.shape.K)]));
  switch (p.options.gate) {
  case GateForm::log_decay: return std::exp(x);
  case GateForm::softplus: return std::exp(-gain * (z > 0 ? z + std::log1p(std::exp(-z)) : std::log1p(std::exp(z))));
  case GateForm::bounded: return std::exp(p.options.lower_bound / (1 + std::exp(-gain * z)));
  default: return 1 / (1 + std::exp(-x));
  }
}

bool about(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

} // namespace

TEST_CASE("a fitted recipe lies inside the declared shapes and forms, for every regime and many contracts") {
  const std::vector<std::string> texts{
      "",
      everything,
      "input=bf16 gate_input=bf16 beta_input=bf16 output=bf16 operands=bf16 K=128 V=128",
      "input=fp16 K=16..128/16 V=8..256/8 T=0..4096 grouped=no packed=no",
      "K=64 V=64 T=64..4096/64 packed=no initial_state=no",
      "l2norm=inside betas=sigmoid gates=softplus,bounded",
      "l2norm=inside betas=twice_sigmoid gates=bounded beta_max=2 g_min=-5",
      "gates=sigmoid betas=sigmoid grouped=no",
      "gates=absent",
      "rule=dplr",
      "rule=dplr gates=log_decay,absent K=32..64/32 grouped=no",
  };
  std::size_t inside = 0, total = 0;
  for (const std::string& text : texts) {
    const Contract c = contract(text);
    for (const Regime& regime : regimes())
      for (std::uint64_t seed = 0; seed < 6; ++seed) {
        const Recipe recipe = fitted(regime.draw(seed, Tier::quick), c);
        INFO(text << "   " << to_token(recipe));
        CHECK(malformed(recipe).value_or("") == "");
        const Problem problem = make_problem(recipe, input_formats(c));
        CHECK(malformed(problem).value_or("") == "");
        const auto why = outside_domain(c, problem);
        // What a regime is about may lie outside: the size of g, beta and |k|, a rule or gate that nothing else means.
        const auto starts = [&](std::string_view label) { return why->starts_with(label); };
        const bool excusable = !why || starts("g=") || starts("beta=") || starts("|k|=") ||
                               (starts("rule") && recipe.options.rule == Rule::dplr) ||
                               (starts("gate form") && c.gates == std::vector{GateForm::absent}) ||
                               (starts("beta form") && (recipe.beta_center > 0.5f || recipe.betas == BetaPattern::one_two)) ||
                               (starts("l2norm outside") && (recipe.key_norm > 1 || recipe.options.rule == Rule::dplr));
        INFO(why.value_or("inside"));
        CHECK(excusable);
        inside += !why;
        ++total;
        CHECK(fitted(recipe, c) == recipe); // nothing more to fit
      }
  }
  CHECK(inside > total * 3 / 5); // or the excuses would hide everything
}

TEST_CASE("regimes inside the domain of the plainest contract stay inside it, whatever their seed") {
  const Contract c = contract("");
  for (const Regime& regime : regimes())
    for (std::uint64_t seed = 0; seed < 40; ++seed) {
      const Recipe recipe = fitted(regime.draw(seed, Tier::quick), c);
      const auto why = outside_domain(c, make_problem(recipe, input_formats(c)));
      if (about(regime.name, {"beta-to-two", "reflections", "keys-longer-than-one", "exact-overwrites", "exact-repeated-key", "anything",
                              "dplr-rwkv7", "dplr-benign"}) ||
          recipe.options.beta != BetaForm::value || recipe.beta_center > 1 ||
          (recipe.betas == BetaPattern::sigmoid_gauss && recipe.beta_center > 0.5f))
        continue;
      INFO(to_token(recipe) << " " << why.value_or(""));
      CHECK_FALSE(why);
    }
}

TEST_CASE("decay survives a change of the gate's form") {
  for (const char* name : {"softplus-gate", "bounded-gate", "sigmoid-gate", "published-init", "trained-gates", "dead-gates", "gate-logits",
                           "usual-decay", "strong-decay", "mixed-decay", "decay-per-head", "sparse-resets"})
    for (std::uint64_t seed = 0; seed < 4; ++seed)
      for (const char* form : {"log_decay", "softplus", "sigmoid", "bounded"}) {
        Recipe recipe = regime_named(name)->draw(seed, Tier::quick);
        const Problem before = make_problem(recipe, {});
        const Recipe changed =
            fitted(recipe, contract(std::string("l2norm=both beta_max=2 betas=value,sigmoid,twice_sigmoid gates=") + form));
        const Problem after = make_problem(changed, {});
        INFO(to_token(recipe) << " " << to_token(changed));
        REQUIRE(before.g.size() == after.g.size());
        double worst = 0;
        for (std::size_t at = 0; at < before.g.size(); ++at) worst = std::max(worst, std::fabs(alpha(before, at) - alpha(after, at)));
        // A gate input is rounded to fp32; A_log up to 200 multiplies that of an input of a few units.
        CHECK(worst < 2e-5);
      }
}

TEST_CASE("beta and keys survive a change of their form") {
  for (const char* name : {"gaussian-keys", "beta-logits", "l2norm-inside", "tiny-keys", "zero-keys", "published-init"})
    for (std::uint64_t seed = 0; seed < 4; ++seed) {
      const Recipe recipe = regime_named(name)->draw(seed, Tier::quick);
      const bool to_two = recipe.options.beta == BetaForm::twice_sigmoid;
      const Recipe outside = fitted(recipe, contract("beta_max=2"));
      const Recipe inside =
          fitted(outside, contract(to_two ? "l2norm=inside betas=twice_sigmoid beta_max=2" : "l2norm=inside betas=sigmoid"));
      INFO(to_token(recipe) << " " << to_token(inside));
      CHECK(outside.options.beta == BetaForm::value);
      CHECK_FALSE(outside.options.l2norm);
      CHECK(inside.options.l2norm);
      const Problem p = make_problem(outside, {}), q = make_problem(inside, {});
      for (std::size_t at = 0; at < p.beta.size(); ++at) {
        const double beta = (to_two ? 2 : 1) / (1 + std::exp(-static_cast<double>(q.beta[at])));
        CHECK(std::fabs(p.beta[at] - beta) < 1e-5);
      }
      // Rows drawn for the kernel to normalise vary in length; a kernel that is given |k| = 1 sees no other.
      const auto length = [&](const Problem& problem, std::size_t row, bool normalise) {
        double sum = 0;
        for (std::int64_t c = 0; c < problem.shape.K; ++c)
          sum += std::pow(problem.k[row * static_cast<std::size_t>(problem.shape.K) + static_cast<std::size_t>(c)], 2);
        return std::sqrt(normalise ? sum / (sum + 1e-6) : sum);
      };
      for (std::size_t row = 0; row < p.k.size() / static_cast<std::size_t>(p.shape.K); ++row)
        if (outside.key_norm > 0.99f) CHECK(std::fabs(length(p, row, false) - length(q, row, true)) < 1e-3);
    }
}

TEST_CASE("KDA given to a kernel of the general rule is the same recurrence") {
  const Contract dplr = contract("rule=dplr");
  for (const char* name : {"gaussian-keys", "grouped-heads", "published-init", "l2norm-inside"}) {
    const Recipe recipe = regime_named(name)->draw(0, Tier::quick);
    const Recipe general = fitted(recipe, dplr);
    Recipe outside = fitted(recipe, contract("beta_max=2"));
    const Problem p = make_problem(outside, {}), q = make_problem(general, {});
    REQUIRE(general.options.rule == Rule::dplr);
    REQUIRE(q.beta.empty());
    const auto& s = p.shape;
    for (std::int64_t row = 0; row < s.B * s.T; ++row)
      for (std::int64_t head = 0; head < s.HV; ++head)
        for (std::int64_t c = 0; c < s.K; ++c) {
          const std::int64_t h = head / (s.HV / s.H);
          const auto at = static_cast<std::size_t>((row * s.HV + head) * s.K + c),
                     key = static_cast<std::size_t>((row * s.H + h) * s.K + c);
          // Heads that share k share beta: that of the first.
          const double beta = p.beta[static_cast<std::size_t>(row * s.HV + h * (s.HV / s.H))];
          REQUIRE(q.a[at] == Approx(beta * p.k[key]).epsilon(1e-6).margin(1e-30));
          REQUIRE(q.k[key] == q.a[at]);
          REQUIRE(q.b[at] == Approx(p.k[key] * alpha(p, at)).epsilon(1e-6).margin(1e-30));
        }
    CHECK(fitted(general, contract("beta_max=2")) == outside);
  }
}

TEST_CASE("sizes go to the nearest that are offered") {
  Recipe recipe = regime_named("gaussian-keys")->draw(0, Tier::quick);
  recipe.shape = {1, 65, 2, 4, 60, 200};
  recipe.options.scale = 1.0f / std::sqrt(60.0f);
  const Recipe fit = fitted(recipe, contract("K=16..256/16 V=64..128/64 T=0..64 grouped=no"));
  CHECK(fit.shape == Shape{1, 64, 2, 2, 64, 128});
  CHECK(fit.options.scale == 0.125f); // the customary scale follows K
  recipe.options.scale = 0.5f;
  CHECK(fitted(recipe, contract("K=16..256/16")).options.scale == 0.5f);
  recipe.shape.B = 1;
  recipe.lengths = {30, 0, 35};
  CHECK(fitted(recipe, contract("T=0..32")).lengths == std::vector<std::int64_t>{30, 0, 2});
  CHECK(fitted(recipe, contract("T=0..16")).lengths == std::vector<std::int64_t>{16, 0, 0});
  CHECK(fitted(recipe, contract("T=128")).lengths == std::vector<std::int64_t>{30, 0, 98});
}

TEST_CASE("regimes that walk through sizes walk through all of them for kernels that take no beta above 1") {
  const Contract one = contract("betas=value,sigmoid"), two = contract("betas=value,sigmoid,twice_sigmoid beta_max=2");
  for (const char* name : {"every-width", "whole-chunks", "every-pair"}) {
    const Regime& regime = *regime_named(name);
    int above_one = 0;
    for (std::uint64_t seed = 0; seed < static_cast<std::uint64_t>(regime.rounds); ++seed) {
      const Recipe recipe = regime.draw(seed, Tier::quick), halved = fitted(recipe, one);
      INFO(to_token(recipe));
      CHECK(outside_domain(one, make_problem(halved, input_formats(one))).value_or("").find("beta") == std::string::npos);
      CHECK(halved.shape.K == recipe.shape.K);
      CHECK(halved.beta_center <= 0.5f);
      CHECK(fitted(recipe, two).beta_center == recipe.beta_center);
      above_one += recipe.beta_center > 0.5f;
    }
    if (std::string_view(name) != "whole-chunks") CHECK(above_one > 3);
  }
}
