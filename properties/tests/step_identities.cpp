// S11 against kernels, identity by identity: a step that goes wrong along its key, and one that goes wrong beside it, are told apart.

#include "plain_recurrence.hpp"
#include "planted.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <map>

using namespace kdacheck;
using namespace kdacheck::tests;

namespace {

/// Adds `amount` of a direction to every column of every state a call leaves: of its last token's key, or of one orthogonal to it.
template <bool along> void push(const Inputs& in, const Outputs& out) {
  constexpr float amount = 0.01f;
  const auto& shape = in.shape;
  if (!out.final_state || shape.T == 0) return;
  for (std::int64_t n = 0; n < shape.B; ++n)
    for (std::int64_t head = 0; head < shape.HV; ++head) {
      const std::int64_t row = ((n + 1) * shape.T - 1) * shape.H + head / (shape.HV / shape.H);
      std::vector<float> k, direction(static_cast<std::size_t>(shape.K));
      for (std::int64_t i = 0; i < shape.K; ++i) k.push_back(load(in[Input::k], row * shape.K + i));
      if constexpr (along)
        direction = k;
      else
        direction[0] = k[1], direction[1] = -k[0]; // rounded so little that k^T of it is 0 but for 2^-24
      for (std::int64_t i = 0; i < shape.K; ++i)
        for (std::int64_t j = 0; j < shape.V; ++j)
          add_to(out.final_state, ((n * shape.HV + head) * shape.K + i) * shape.V + j, amount * direction[static_cast<std::size_t>(i)]);
    }
}

Kernel pushed(void (*harm)(const Inputs&, const Outputs&)) {
  Kernel kernel = plain_recurrence(*parse_contract("beta_max=2 k_norm_max=2 K=2..16 V=1..8 T=0..40 packed=no").contract);
  if (harm)
    kernel.forward = [harm](const Inputs& in, const Outputs& out, std::span<std::byte>) {
      plain_forward(in, out);
      harm(in, out);
    };
  return kernel;
}

/// Which identity the law names, and how often.
std::map<std::string, int> named(const Kernel& kernel) {
  Judge judge;
  std::map<std::string, int> result;
  for (const char* regime : {"gaussian-keys", "usual-decay", "near-identical-keys", "slow-decay"})
    for (std::uint64_t seed = 1; seed <= 6; ++seed) {
      const Recipe recipe = fitted(regime_named(regime)->draw(seed, Tier::quick), kernel.contract);
      const Finding finding = checked(kernel, property_named("each-step-keeps-its-identities"), recipe, judge);
      if (finding.verdict == Verdict::not_supported) continue;
      if (finding.verdict == Verdict::passed) ++result["none"];
      for (const char* what : {"k^T S", "w^T S", "|S|^2"})
        if (is_failure(finding.verdict) && finding.detail.find(what) != std::string::npos) ++result[what];
    }
  return result;
}

} // namespace

TEST_CASE("a right step keeps every identity; one pushed along its key breaks the readback, one pushed beside it what lies beside") {
  const auto right = named(pushed(nullptr)), along = named(pushed(push<true>)), beside = named(pushed(push<false>));
  const auto of = [](const std::map<std::string, int>& seen, const char* what) { return seen.contains(what) ? seen.at(what) : 0; };
  CHECK(of(right, "none") >= 12);
  CHECK(right.size() == 1);
  CHECK(of(along, "k^T S") >= 12);
  CHECK(of(along, "w^T S") == 0);
  CHECK(of(beside, "w^T S") >= 12);
  CHECK(of(along, "k^T S") + of(along, "|S|^2") == 24);
  CHECK(of(beside, "w^T S") + of(beside, "|S|^2") == 24); // in 4 regimes with 6 seeds
  CHECK(of(beside, "k^T S") == 0);
  CHECK(of(along, "none") == 0);
  CHECK(of(beside, "none") == 0);
}
