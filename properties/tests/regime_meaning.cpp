// Each regime does what its name and its one line say, measured on the tensors.

#include "../recipe.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <set>

using namespace kdacheck;

namespace {

constexpr InputFormats fp32{};
constexpr std::uint64_t seeds = 24;

struct Case {
  Recipe recipe;
  Problem problem;
};

std::vector<Case> cases(const char* regime, const InputFormats& formats = fp32, Tier tier = Tier::quick) {
  const Regime* found = regime_named(regime);
  REQUIRE(found);
  std::vector<Case> all;
  for (std::uint64_t seed = 0; seed < seeds; ++seed) {
    const Recipe recipe = found->draw(seed, tier);
    all.push_back({recipe, make_problem(recipe, formats)});
  }
  return all;
}

double dot(const float* x, const float* y, std::int64_t n) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * y[i];
  return sum;
}

const float* key(const Problem& p, std::int64_t row, std::int64_t h) { return p.k.data() + (row * p.shape.H + h) * p.shape.K; }

double key_length(const Problem& p, std::int64_t row, std::int64_t h) { return std::sqrt(dot(key(p, row, h), key(p, row, h), p.shape.K)); }

/// Mean cosine of the keys of neighbouring tokens.
double cosine_of_neighbours(const Problem& p) {
  double sum = 0;
  std::int64_t count = 0;
  for (const Sequence& sequence : sequences(p))
    for (std::int64_t row = sequence.first + 1; row < sequence.first + sequence.length; ++row)
      for (std::int64_t h = 0; h < p.shape.H; ++h, ++count)
        sum += dot(key(p, row, h), key(p, row - 1, h), p.shape.K) / (key_length(p, row, h) * key_length(p, row - 1, h));
  return count > 0 ? sum / static_cast<double>(count) : NAN;
}

struct Range {
  double least = INFINITY, most = -INFINITY;
  void add(double x) {
    least = std::min(least, x);
    most = std::max(most, x);
  }
};

Range range(const std::vector<float>& values) {
  Range result;
  for (float x : values) result.add(x);
  return result;
}

/// ln alpha of every element of g, whatever its form.
std::vector<double> log_decays(const Problem& p) {
  std::vector<double> all;
  const auto rows = static_cast<std::size_t>(p.shape.HV * p.shape.K);
  for (std::size_t at = 0; at < p.g.size(); ++at) {
    const double x = p.g[at], z = x + (p.dt_bias.empty() ? 0.0 : p.dt_bias[at % rows]);
    const double gain = p.A_log.empty() ? 0 : std::exp(static_cast<double>(p.A_log[at % rows / static_cast<std::size_t>(p.shape.K)]));
    const auto softplus = [](double y) { return y > 0 ? y + std::log1p(std::exp(-y)) : std::log1p(std::exp(y)); };
    switch (p.options.gate) {
    case GateForm::log_decay: all.push_back(x); break;
    case GateForm::softplus: all.push_back(-gain * softplus(z)); break;
    case GateForm::bounded: all.push_back(p.options.lower_bound / (1 + std::exp(-gain * z))); break;
    default: all.push_back(-softplus(-x)); break;
    }
  }
  return all;
}

Range decay_range(const char* regime) {
  Range result;
  for (const Case& c : cases(regime))
    for (double g : log_decays(c.problem)) result.add(-g);
  return result;
}

} // namespace

TEST_CASE("every regime has a name of its own, a reason, and recipes that differ by seed") {
  std::set<std::string> names;
  for (const Regime& regime : regimes()) {
    INFO(regime.name);
    CHECK(names.insert(regime.name).second);
    CHECK(regime.why.size() > 10);
    CHECK(regime.why.find('\n') == std::string::npos);
    CHECK(regime_named(regime.name) == &regime);
    CHECK(regime.draw(3, Tier::quick) == regime.draw(3, Tier::quick));
    std::set<std::string> tokens;
    for (std::uint64_t seed = 0; seed < 50; ++seed) tokens.insert(to_token(regime.draw(seed, Tier::quick)));
    CHECK(tokens.size() == 50);
  }
  CHECK(names.size() >= 40);
  CHECK(regime_named("no-such-regime") == nullptr);
}

TEST_CASE("quick cases are small, and full and nightly ones are larger") {
  double quick = 0, full = 0, nightly = 0;
  for (const Regime& regime : regimes())
    for (std::uint64_t seed = 8; seed < 40; ++seed) {
      const auto work = [&](Tier tier) {
        const Shape s = regime.draw(seed, tier).shape;
        return static_cast<double>(s.B * s.T * s.HV * s.K * s.V);
      };
      INFO(regime.name << " " << seed);
      CHECK(work(Tier::quick) <= 1'000'000);
      quick += work(Tier::quick);
      full += work(Tier::full);
      nightly += work(Tier::nightly);
    }
  CHECK(full > 5 * quick);
  CHECK(nightly > 2 * full);
}

TEST_CASE("a run of seeds begins with more than one chunk of 64 and a tail, and soon has one chunk at most") {
  for (std::uint64_t run : {0u, 1u, 7u}) {
    CHECK(regime_named("gaussian-keys")->draw(64 * run, Tier::quick).shape.T > 64);
    CHECK(regime_named("gaussian-keys")->draw(64 * run, Tier::quick).shape.T % 64 != 0);
    CHECK(regime_named("gaussian-keys")->draw(64 * run + 2, Tier::quick).shape.T <= 64);
  }
}

TEST_CASE("the first two seeds of all regimes together have tails, grouped heads, batches, three chunks and K unlike V") {
  int tail = 0, grouped = 0, chunks = 0, unlike = 0, batch = 0, all = 0;
  for (const Regime& regime : regimes())
    for (std::uint64_t seed : {640u, 641u}) {
      const Shape s = regime.draw(seed, Tier::quick).shape;
      tail += s.T > 64 && s.T % 64 != 0 && s.T % 16 != 0;
      grouped += s.HV > s.H;
      chunks += s.T > 128;
      unlike += s.K != s.V;
      batch += s.B > 1;
      ++all;
    }
  CHECK(tail > all / 5);
  CHECK(grouped > all / 5);
  CHECK(chunks > all / 20);
  CHECK(unlike > all / 2);
  CHECK(batch > all / 20);
}

TEST_CASE("keys have the angles that their regime names") {
  for (const Case& c : cases("gaussian-keys"))
    if (c.problem.shape.T * c.problem.shape.K > 500) CHECK(std::fabs(cosine_of_neighbours(c.problem)) < 0.2);
  for (const Case& c : cases("uniform-keys"))
    if (c.problem.shape.T * c.problem.shape.K > 500) CHECK(cosine_of_neighbours(c.problem) == Approx(0.75).margin(0.06));
  for (const Case& c : cases("near-identical-keys", {Format::bf16, Format::bf16, Format::bf16})) {
    if (c.problem.shape.T > 1) CHECK(cosine_of_neighbours(c.problem) > 0.9);
  }
  for (const Case& c : cases("alternating-keys"))
    if (c.problem.shape.T > 1) CHECK(cosine_of_neighbours(c.problem) < -0.9);
}

TEST_CASE("near-identical keys come with slow decay and beta near 1") {
  CHECK(decay_range("near-identical-keys").most <= 0.0201);
  CHECK(decay_range("alternating-keys").most <= 0.0201);
  for (const Case& c : cases("near-identical-keys")) CHECK(range(c.problem.beta).least > 0.69);
}

TEST_CASE("constant tokens have the same bits throughout a sequence") {
  for (const Case& c : cases("constant-tokens")) {
    const Problem& p = c.problem;
    for (const auto* tensor : {&p.q, &p.k, &p.v, &p.g, &p.beta}) {
      const auto token = tensor->size() / static_cast<std::size_t>(p.shape.B * p.shape.T);
      REQUIRE(std::equal(tensor->begin() + static_cast<std::ptrdiff_t>(token), tensor->end(), tensor->begin()));
    }
    CHECK(p.q != p.k);
  }
}

TEST_CASE("keys have the length that their regime names, to the rounding of their format") {
  for (const Format format : {Format::fp32, Format::bf16})
    for (const Case& c : cases("gaussian-keys", {format, Format::fp32, Format::fp32}))
      for (std::int64_t row = 0; row < c.problem.shape.B * c.problem.shape.T; ++row)
        CHECK(std::fabs(key_length(c.problem, row, 0) - 1) <= 2 * unit_roundoff(format));
  bool longer = false;
  for (const Case& c : cases("keys-longer-than-one", {Format::bf16, Format::fp32, Format::fp32}))
    for (std::int64_t row = 0; row < c.problem.shape.B * c.problem.shape.T; ++row) {
      longer = longer || key_length(c.problem, row, 0) > 1.001;
      CHECK(key_length(c.problem, row, 0) < 1.0081);
    }
  CHECK(longer);
  Range tiny;
  for (const Case& c : cases("tiny-keys"))
    for (std::int64_t row = 0; row < c.problem.shape.B * c.problem.shape.T; ++row) tiny.add(key_length(c.problem, row, 0));
  CHECK(tiny.most < 0.11);
  CHECK(tiny.least < 1.1e-6);
  std::size_t zeros = 0, rows = 0, all_zero = 0;
  for (const Case& c : cases("zero-keys")) {
    std::size_t here = 0;
    for (std::int64_t row = 0; row < c.problem.shape.B * c.problem.shape.T; ++row) here += key_length(c.problem, row, 0) == 0;
    zeros += here;
    rows += static_cast<std::size_t>(c.problem.shape.B * c.problem.shape.T);
    all_zero += here == static_cast<std::size_t>(c.problem.shape.B * c.problem.shape.T);
  }
  CHECK(zeros > rows / 5);
  CHECK(zeros < rows);
  CHECK(all_zero > 0);
  Range inside;
  for (const Case& c : cases("l2norm-inside")) {
    CHECK(c.problem.options.l2norm);
    for (std::int64_t row = 0; row < c.problem.shape.B * c.problem.shape.T; ++row) inside.add(key_length(c.problem, row, 0));
  }
  CHECK(inside.least < 1e-5);
  CHECK(inside.most > 100);
}

TEST_CASE("decays span what their regime names") {
  CHECK(decay_range("no-decay").most == 0);
  CHECK(decay_range("slow-decay").most <= 0.0201);
  CHECK(decay_range("usual-decay").most > 0.8);
  CHECK(decay_range("strong-decay").most >= 11);
  CHECK(decay_range("strong-decay").least > 0.9);
  CHECK(decay_range("extreme-decay").most >= 1000);
  CHECK(decay_range("trained-gates").most > 1500);
  CHECK(decay_range("published-init").most > 0.5);
  CHECK(decay_range("published-init").least < 1e-3);
  CHECK(decay_range("sigmoid-gate").most > 39);
  CHECK(decay_range("sigmoid-gate").least < 1e-15);
  CHECK(decay_range("mixed-decay").most > 5);
  CHECK(decay_range("mixed-decay").least < 0.01);
}

TEST_CASE("sparse resets are rare, strong and common to a token's channels, and the rest does not decay") {
  std::size_t resets = 0, tokens = 0;
  for (const Case& c : cases("sparse-resets")) {
    const auto K = static_cast<std::size_t>(c.problem.shape.K);
    for (std::size_t at = 0; at < c.problem.g.size(); at += K, ++tokens) {
      const float first = c.problem.g[at];
      for (std::size_t i = 1; i < K; ++i) REQUIRE(c.problem.g[at + i] == first);
      resets += first < 0;
      CHECK((first == 0 || first <= -9.9f));
    }
  }
  CHECK(resets > tokens / 50);
  CHECK(resets < tokens / 3);
}

TEST_CASE("mixed decay holds slow and strong channels in one head") {
  for (const Case& c : cases("mixed-decay")) {
    if (c.problem.shape.K < 16) continue;
    Range head;
    for (std::int64_t i = 0; i < c.problem.shape.K; ++i) head.add(-c.problem.g[static_cast<std::size_t>(i)]);
    CHECK(head.most > 20 * head.least);
  }
}

TEST_CASE("decay differs by head, or by channel, where the regime says so") {
  for (const Case& c : cases("decay-per-head")) {
    const auto K = static_cast<std::size_t>(c.problem.shape.K);
    REQUIRE(c.problem.shape.HV > 1);
    CHECK(c.problem.g[0] < 0);
    CHECK(c.problem.g[K] == 0);
  }
  for (const Case& c : cases("decay-per-channel")) {
    CHECK(c.problem.g[0] < 0);
    CHECK(c.problem.g[1] == 0);
  }
}

TEST_CASE("gates computed inside have the parameters that their regime names") {
  Range gain, bias;
  for (const Case& c : cases("published-init")) {
    CHECK(c.problem.options.l2norm);
    CHECK(c.problem.options.beta != BetaForm::value);
    for (float x : c.problem.A_log) gain.add(std::exp(static_cast<double>(x)));
    for (float x : c.problem.dt_bias) bias.add(std::log1p(std::exp(static_cast<double>(x)))); // dt
  }
  CHECK(gain.least >= 0.999);
  CHECK(gain.most <= 16.001);
  CHECK(gain.most > 10);
  CHECK(bias.least > 0.99e-3);
  CHECK(bias.most < 0.101);
  Range trained;
  for (const Case& c : cases("trained-gates"))
    for (float x : c.problem.A_log) trained.add(std::exp(static_cast<double>(x)));
  CHECK(trained.most > 150);
  CHECK(trained.most <= 200.001);
  bool with = false, without = false, saturated = false;
  for (const Case& c : cases("bounded-gate")) {
    (c.problem.dt_bias.empty() ? without : with) = true;
    CHECK(c.problem.options.lower_bound <= -1);
    CHECK(c.problem.options.lower_bound >= -5);
    const auto g = log_decays(c.problem);
    saturated = saturated || std::all_of(g.begin(), g.end(), [&](double x) { return x < 0.999999 * c.problem.options.lower_bound; });
  }
  CHECK((with && without && saturated));
  for (const Case& c : cases("dead-gates"))
    for (std::size_t j = 0; j < c.problem.A_log.size(); ++j) CHECK((std::isinf(c.problem.A_log[j]) == (j % 2 == 0)));
}

TEST_CASE("beta has the values that its regime names") {
  for (const Case& c : cases("beta-zero"))
    for (float x : c.problem.beta) REQUIRE(x == 0);
  for (const Case& c : cases("beta-one"))
    for (float x : c.problem.beta) REQUIRE(x == 1);
  for (const Case& c : cases("reflections"))
    for (float x : c.problem.beta) REQUIRE(x == 2);
  Range tiny, two, plain;
  for (const Case& c : cases("beta-tiny"))
    for (float x : c.problem.beta) tiny.add(x);
  for (const Case& c : cases("beta-to-two"))
    for (float x : c.problem.beta) two.add(x);
  for (const Case& c : cases("gaussian-keys"))
    for (float x : c.problem.beta) plain.add(x);
  CHECK(tiny.most <= 2e-3);
  CHECK(tiny.least <= 1e-10);
  CHECK(tiny.least >= 0);
  CHECK(two.most > 1.99);
  CHECK(two.most <= 2);
  CHECK(plain.least >= 0);
  CHECK(plain.most <= 1);
  CHECK(plain.most > 0.99);
  Range logits;
  for (const Case& c : cases("beta-logits")) {
    CHECK(c.problem.options.beta != BetaForm::value);
    for (float x : c.problem.beta) logits.add(x);
  }
  CHECK(logits.least < -30);
  CHECK(logits.most > 30);
}

TEST_CASE("values and states have the size that their regime names") {
  for (const Case& c : cases("pure-transport")) {
    CHECK(range(c.problem.v).most == 0);
    CHECK(range(c.problem.v).least == 0);
    CHECK_FALSE(c.problem.initial_state.empty());
    CHECK(range(c.problem.initial_state).most > 0);
  }
  for (const Case& c : cases("large-values", {Format::fp16, Format::fp16, Format::fp16})) CHECK(range(c.problem.v).most <= 65504);
  Range largest, smallest;
  for (const Case& c : cases("large-values")) largest.add(range(c.problem.v).most);
  for (const Case& c : cases("tiny-values")) smallest.add(range(c.problem.v).most);
  CHECK(largest.most > 2e4);
  CHECK(smallest.least < 1e-29);
  for (const Case& c : cases("warm-chunk")) {
    CHECK(c.problem.shape.T <= 64);
    CHECK(range(c.problem.initial_state).most > 0);
  }
}

TEST_CASE("every length from 0 to twice the chunk and one more is drawn, the sharp ones first") {
  for (const auto& [name, C] : {std::pair{"every-length-64", 64}, std::pair{"every-length-16", 16}}) {
    std::set<std::int64_t> lengths, first;
    for (std::uint64_t seed = 0; seed < 192; ++seed) {
      lengths.insert(regime_named(name)->draw(seed, Tier::quick).shape.T);
      if (seed < 14) first = lengths;
    }
    CHECK(*lengths.begin() == 0);
    CHECK(*lengths.rbegin() == 2 * C + 1);
    CHECK(lengths.size() == static_cast<std::size_t>(2 * C + 2));
    CHECK(regime_named(name)->draw(640, Tier::quick).shape.T == C + 1);
    for (std::int64_t T : {0, 1, C - 1, C, C + 1, 2 * C, 2 * C + 1}) CHECK(first.count(T) == 1);
  }
}

TEST_CASE("packed regimes hold empty members in every position, single tokens and odd offsets") {
  bool first = false, last = false, between = false, all = false, odd = false;
  for (const Case& c : cases("packed-with-empty")) {
    const auto& lengths = c.recipe.lengths;
    const bool empty = std::all_of(lengths.begin(), lengths.end(), [](auto length) { return length == 0; });
    all = all || empty;
    if (empty) continue;
    first = first || lengths.front() == 0;
    last = last || lengths.back() == 0;
    for (std::size_t i = 1; i + 1 < lengths.size(); ++i) between = between || lengths[i] == 0;
  }
  CHECK((first && last && between && all));
  for (const Case& c : cases("packed"))
    for (std::int64_t start : c.problem.cu_seqlens) odd = odd || start % 2 == 1;
  CHECK(odd);
  for (const Case& c : cases("packed-single-tokens")) {
    CHECK(std::count(c.recipe.lengths.begin(), c.recipe.lengths.end(), 1) >= 4);
    CHECK(std::count_if(c.recipe.lengths.begin(), c.recipe.lengths.end(), [](auto length) { return length != 1; }) <= 1);
  }
}

TEST_CASE("heads are grouped and widths are odd where the regime says so") {
  std::set<std::int64_t> groups;
  for (const Case& c : cases("grouped-heads")) groups.insert(c.recipe.shape.HV / c.recipe.shape.H);
  CHECK(groups == std::set<std::int64_t>{2, 3, 4});
  for (const Case& c : cases("odd-widths")) {
    CHECK(c.recipe.shape.K != c.recipe.shape.V);
    CHECK(c.recipe.shape.K % 8 != 0);
  }
  bool one_key = false, one_value = false;
  for (const Case& c : cases("narrow")) {
    one_key = one_key || c.recipe.shape.K == 1;
    one_value = one_value || c.recipe.shape.V == 1;
    CHECK(std::min(c.recipe.shape.K, c.recipe.shape.V) <= 4);
  }
  CHECK((one_key && one_value));
}

TEST_CASE("losses are where their regime says") {
  const auto zero = [](const std::vector<float>& x) { return std::all_of(x.begin(), x.end(), [](float value) { return value == 0; }); };
  for (const Case& c : cases("gaussian-keys")) {
    CHECK_FALSE(zero(c.problem.d_o));
    CHECK_FALSE(zero(c.problem.d_final_state));
  }
  for (const Case& c : cases("loss-on-outputs")) {
    CHECK_FALSE(zero(c.problem.d_o));
    CHECK(c.problem.d_final_state.empty());
  }
  for (const Case& c : cases("loss-on-final-state")) {
    CHECK(c.problem.d_o.empty());
    CHECK_FALSE(zero(c.problem.d_final_state));
  }
  for (const Case& c : cases("loss-on-one-token")) {
    std::set<std::size_t> tokens;
    const auto token = static_cast<std::size_t>(c.problem.shape.HV * c.problem.shape.V);
    for (std::size_t at = 0; at < c.problem.d_o.size(); ++at)
      if (c.problem.d_o[at] != 0) tokens.insert(at / token);
    CHECK(tokens.size() == 1);
  }
  for (const Case& c : cases("loss-on-one-head")) {
    std::set<std::size_t> heads;
    const auto V = static_cast<std::size_t>(c.problem.shape.V), HV = static_cast<std::size_t>(c.problem.shape.HV);
    for (std::size_t at = 0; at < c.problem.d_o.size(); ++at)
      if (c.problem.d_o[at] != 0) heads.insert(at / V % HV);
    CHECK(heads.size() == 1);
    CHECK(HV > 1);
  }
}

TEST_CASE("benign transitions of the general rule contract, and those of RWKV-7 are a unit vector against itself") {
  for (const Case& c : cases("dplr-benign")) {
    const Problem& p = c.problem;
    for (std::size_t at = 0; at < p.a.size(); at += static_cast<std::size_t>(p.shape.K)) {
      Range g;
      for (std::int64_t i = 0; i < p.shape.K; ++i) g.add(p.g[at + static_cast<std::size_t>(i)]);
      const double norm = std::sqrt(dot(&p.a[at], &p.a[at], p.shape.K) * dot(&p.b[at], &p.b[at], p.shape.K));
      REQUIRE(std::exp(g.most) + norm < 1);
    }
  }
  for (const Case& c : cases("dplr-rwkv7")) {
    const Problem& p = c.problem;
    for (std::size_t at = 0; at < p.a.size(); ++at) {
      const double ratio = p.b[at] / p.a[at];
      REQUIRE(ratio > 0);
      REQUIRE(ratio < 1);
    }
  }
}
