#include "dplr_transition.hpp"

#include "../cpu/parallel.hpp"
#include "head_step.hpp"

#include <fmt/core.h>
#include <stdexcept>

namespace kdacheck::modules {
namespace {

void check_size(const char* tensor, const char* shape, std::size_t found, std::int64_t wanted) {
  if (static_cast<std::int64_t>(found) != wanted)
    throw std::invalid_argument(fmt::format("transition: {} has {} numbers, its shape {} needs {}", tensor, found, shape, wanted));
}

void check_state(const StateShape& shape, std::span<float> state) {
  const auto& [B, H, K, V] = shape;
  if (B < 0 || H < 1 || K < 1 || V < 1)
    throw std::invalid_argument(fmt::format("transition: B = {}, H = {}, K = {}, V = {} is no shape of states", B, H, K, V));
  check_size("state", "[B,H,K,V]", state.size(), shape.elements());
}

void check(const StateShape& shape, const KdaStep& step, bool with_values) {
  const std::int64_t heads = shape.B * shape.H;
  check_size("alpha", "[B,H,K]", step.alpha.size(), heads * shape.K);
  check_size("k", "[B,H,K]", step.k.size(), heads * shape.K);
  check_size("beta", "[B,H]", step.beta.size(), heads);
  if (with_values) check_size("v", "[B,H,V]", step.v.size(), heads * shape.V);
}

void check(const StateShape& shape, const DplrStep& step, bool with_values) {
  const std::int64_t heads = shape.B * shape.H;
  check_size("d", "[B,H,K]", step.d.size(), heads * shape.K);
  check_size("a", "[B,H,K]", step.a.size(), heads * shape.K);
  check_size("b", "[B,H,K]", step.b.size(), heads * shape.K);
  if (!with_values) return;
  check_size("k", "[B,H,K]", step.k.size(), heads * shape.K);
  check_size("v", "[B,H,V]", step.v.size(), heads * shape.V);
}

KdaHead head_of(const StateShape& shape, const KdaStep& step, std::int64_t head, bool with_values) {
  return {.alpha = step.alpha.data() + head * shape.K,
          .k = step.k.data() + head * shape.K,
          .beta = step.beta[static_cast<std::size_t>(head)],
          .v = with_values ? step.v.data() + head * shape.V : nullptr};
}

DplrHead head_of(const StateShape& shape, const DplrStep& step, std::int64_t head, bool with_values) {
  return {.d = step.d.data() + head * shape.K,
          .a = step.a.data() + head * shape.K,
          .b = step.b.data() + head * shape.K,
          .k = with_values ? step.k.data() + head * shape.K : nullptr,
          .v = with_values ? step.v.data() + head * shape.V : nullptr};
}

template <class Step> void apply(const StateShape& shape, const Step& step, std::span<float> state, bool with_values) {
  check_state(shape, state);
  check(shape, step, with_values);
  cpu::for_each_task(shape.B * shape.H, {}, 0, 2.0 * static_cast<double>(shape.elements()), [&](std::int64_t head, std::byte*) {
    step_head(head_of(shape, step, head, with_values), shape.K, shape.V, state.data() + head * shape.K * shape.V);
  });
}

} // namespace

void transition(const StateShape& shape, const KdaStep& step, std::span<float> state) { apply(shape, step, state, false); }
void update(const StateShape& shape, const KdaStep& step, std::span<float> state) { apply(shape, step, state, true); }
void transition(const StateShape& shape, const DplrStep& step, std::span<float> state) { apply(shape, step, state, false); }
void update(const StateShape& shape, const DplrStep& step, std::span<float> state) { apply(shape, step, state, true); }

} // namespace kdacheck::modules
