#include "search.hpp"

#include "cases/generate.hpp"
#include "team.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <map>
#include <mutex>
#include <random>

namespace kdacheck {
namespace {

using Clock = std::chrono::steady_clock;

/// Raw 64-bit draws only: what std:: distributions make of them differs between libraries.
struct Dice {
  std::mt19937_64 engine;
  explicit Dice(std::uint64_t seed) : engine(seed) {}
  std::uint64_t below(std::uint64_t n) { return engine() % n; }
  double unit() { return static_cast<double>(engine() >> 11) * 0x1p-53; }
  /// Sum of four uniforms, variance 1: near enough to a normal draw for steps of a search.
  double step() { return (unit() + unit() + unit() + unit() - 2) * std::sqrt(3.0); }
};

void scale(float& value, Dice& dice, float least, float most) {
  const double factor = std::exp2(1.5 * dice.step());
  value = std::clamp(static_cast<float>(std::max(static_cast<double>(value), static_cast<double>(least)) * factor), least, most);
}

std::int64_t neighbouring_size(std::int64_t size, std::int64_t most, Dice& dice) {
  switch (dice.below(4)) {
  case 0: return std::clamp<std::int64_t>(size + static_cast<std::int64_t>(dice.below(3)) - 1, 1, most);
  case 1: return std::clamp<std::int64_t>(size * 2, 1, most);
  case 2: return std::max<std::int64_t>(1, size / 2);
  default: return std::clamp<std::int64_t>(static_cast<std::int64_t>((dice.below(8) + 1) * 16 + dice.below(3)) - 1, 1, most);
  }
}

/// Tokens x value heads up to which a layout grows: beyond, a search spends its time on few large cases.
constexpr std::int64_t most_rows = 1024;

/// Batches become packed sequences and packed sequences batches; a member grows, shrinks or empties.
void change_layout(Recipe& recipe, Dice& dice) {
  Shape& s = recipe.shape;
  if (recipe.lengths.empty()) {
    const auto B = static_cast<std::int64_t>(1 + dice.below(3));
    if (dice.below(2) == 0) { // T tokens in two to four pieces, some perhaps empty
      s.B = 1;
      std::int64_t left = s.T;
      for (std::int64_t pieces = B; pieces > 0; --pieces) {
        recipe.lengths.push_back(static_cast<std::int64_t>(dice.below(static_cast<std::uint64_t>(left) + 1)));
        left -= recipe.lengths.back();
      }
      recipe.lengths.push_back(left);
    } else if (B * s.T * s.HV <= most_rows) {
      s.B = B;
    }
    return;
  }
  if (dice.below(4) == 0) {
    recipe.lengths.clear();
    return;
  }
  std::int64_t& length = recipe.lengths[dice.below(recipe.lengths.size())];
  const std::int64_t before = length;
  length = dice.below(4) == 0 ? 0 : neighbouring_size(length, 512, dice);
  s.T += length - before;
}

/// Heads, and how many of them share a key.
void change_heads(Recipe& recipe, Dice& dice) {
  Shape& s = recipe.shape;
  const auto H = static_cast<std::int64_t>(1 + dice.below(3)), group = static_cast<std::int64_t>(1 + dice.below(2));
  if (s.B * s.T * H * group > most_rows) return;
  s.H = H, s.HV = H * group;
}

void exchange_ingredient(Recipe& recipe, const Recipe& other, Dice& dice) {
  switch (dice.below(5)) {
  case 0: recipe.keys = other.keys, recipe.key_noise = other.key_noise, recipe.key_norm = other.key_norm; break;
  case 1:
    if (recipe.options.gate == other.options.gate)
      recipe.gates = other.gates, recipe.decay = other.decay, recipe.decay_spread = other.decay_spread;
    break;
  case 2:
    if (recipe.options.beta == other.options.beta)
      recipe.betas = other.betas, recipe.beta_center = other.beta_center, recipe.beta_spread = other.beta_spread;
    break;
  case 3: recipe.values = other.values, recipe.value_scale = other.value_scale, recipe.residual = other.residual; break;
  default: recipe.state = other.state, recipe.state_scale = other.state_scale; break;
  }
}

using Niche = std::pair<KeyPattern, GatePattern>;

struct Archive {
  std::map<Niche, Elite> elites;

  /// True if the niche's worst case got worse.
  bool offer(const Elite& candidate) {
    const Niche niche{candidate.recipe.keys, candidate.recipe.gates};
    const auto [place, fresh] = elites.try_emplace(niche, candidate);
    if (fresh) return true;
    if (!(candidate.finding.bound_util > place->second.finding.bound_util)) return false;
    place->second = candidate;
    return true;
  }
  const Recipe& any(Dice& dice) const {
    auto place = elites.begin();
    std::advance(place, static_cast<std::ptrdiff_t>(dice.below(elites.size())));
    return place->second.recipe;
  }
};

} // namespace

Recipe varied(const Recipe& parent, const Recipe& other, std::uint64_t random_seed) {
  Dice dice(random_seed);
  Recipe recipe = parent;
  for (std::uint64_t changes = 1 + dice.below(3); changes > 0; --changes) {
    switch (dice.below(14)) {
    case 0: scale(recipe.decay, dice, 1e-7f, 3e3f); break;
    case 1: scale(recipe.decay_spread, dice, 1e-3f, 1.0f); break;
    case 2: scale(recipe.key_noise, dice, 1e-6f, 1.0f); break;
    case 3: scale(recipe.value_scale, dice, 1e-6f, 1e6f); break;
    case 4: scale(recipe.state_scale, dice, 1e-6f, 1e6f); break;
    case 5: recipe.beta_center = std::clamp(recipe.beta_center + 0.2f * static_cast<float>(dice.step()), 0.0f, 1.0f); break;
    case 6: scale(recipe.beta_spread, dice, 1e-4f, 1.0f); break;
    case 7:
      if (recipe.lengths.empty()) recipe.shape.T = neighbouring_size(recipe.shape.T, 512, dice);
      break;
    case 8: recipe.shape.K = neighbouring_size(recipe.shape.K, 128, dice); break;
    case 9: recipe.shape.V = neighbouring_size(recipe.shape.V, 128, dice); break;
    case 10: exchange_ingredient(recipe, other, dice); break;
    case 11: change_layout(recipe, dice); break;
    case 12: change_heads(recipe, dice); break;
    default: recipe.seed = dice.engine();
    }
  }
  return recipe;
}

SearchResult search_worst(const SearchPlan& plan, const std::function<void(const Elite&, std::size_t)>& on_improvement) {
  const Contract& contract = plan.kernel->contract;
  Judge judge(Judge::Screening::full);
  const auto evaluate = [&](const Recipe& recipe) -> std::optional<Finding> {
    const Problem problem = make_problem(recipe, input_formats(contract));
    if (malformed(problem) || outside_domain(contract, problem)) return std::nullopt;
    if (plan.backward) return judge.backward(contract, problem, run_backward(*plan.kernel, problem));
    return judge.forward(contract, problem, run_forward(*plan.kernel, problem));
  };

  Archive archive;
  SearchResult result;
  std::mutex access;
  std::atomic<std::size_t> starts{0}, ticket{0};
  const auto deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(plan.seconds));

  std::atomic<bool> stopped{false};
  const auto work = [&] {
    while (!stopped && Clock::now() < deadline) {
      Recipe recipe;
      if (const std::size_t start = starts++; start < 2 * plan.regimes.size()) {
        recipe = plan.regimes[start % plan.regimes.size()]->draw(plan.seed + start, plan.tier);
      } else {
        Dice dice(plan.seed * 0x9e3779b97f4a7c15ull + ++ticket);
        const std::lock_guard lock(access);
        if (archive.elites.empty()) return;
        const Recipe& parent = archive.any(dice);
        recipe = varied(parent, archive.any(dice), dice.engine());
      }
      recipe = fitted(recipe, contract);
      const auto finding = evaluate(recipe);
      if (!finding) continue;
      const std::lock_guard lock(access);
      ++result.evaluations;
      const Elite candidate{recipe, *finding};
      if (archive.offer(candidate) && on_improvement) on_improvement(candidate, result.evaluations);
    }
  };
  as_a_team(plan.threads, [&] {
    try {
      work();
    } catch (...) {
      stopped = true;
      throw;
    }
  });
  for (auto& [niche, elite] : archive.elites) result.elites.push_back(std::move(elite));
  std::stable_sort(result.elites.begin(), result.elites.end(), [](const Elite& x, const Elite& y) {
    if (is_failure(x.finding.verdict) != is_failure(y.finding.verdict)) return is_failure(x.finding.verdict);
    return x.finding.bound_util > y.finding.bound_util;
  });
  if (result.failed()) {
    const auto fails = [&](const Recipe& recipe) {
      const auto finding = evaluate(recipe);
      return finding && is_failure(finding->verdict);
    };
    result.shrunk = shrunk(result.elites.front().recipe, fails,
                           Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(plan.shrink_seconds)))
                        .recipe;
  }
  return result;
}

} // namespace kdacheck
